import { statfsSync } from "node:fs";
import { check, cString, libc } from "../ffi/libc.ts";

const EXT4_IOC_RESIZE_FS = 0x40086610;
const O_RDONLY_DIRECTORY = 0x10000 | 0x80000;

/** Grows a mounted ext4. @param path Its mount point. @param sizeBytes Its device's size. @see ext4(5), fs/ext4/resize.c of Linux */
export function growExt4(path: string, sizeBytes: bigint): void {
  const fd = check(`open "${path}"`, libc.open(cString(path), O_RDONLY_DIRECTORY, 0));
  try {
    const blocks = new BigUint64Array([sizeBytes / statfsSync(path, { bigint: true }).bsize]);
    check(`grow the filesystem at "${path}"`, libc.ioctl(fd, EXT4_IOC_RESIZE_FS, new Uint8Array(blocks.buffer)));
  } finally {
    libc.close(fd);
  }
}
