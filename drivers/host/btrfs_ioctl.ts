import { check, cString, libc } from "./libc.ts";

const O_DIRECTORY = 0x10000, O_CLOEXEC = 0x80000;
/** _IOWR(0x94, 61, struct btrfs_ioctl_get_subvol_rootref_args); the struct is 4096 bytes, its count is the byte after 255 references. */
const BTRFS_IOC_GET_SUBVOL_ROOTREF = 0xd000943d;
const argumentBytes = 4096, countOffset = 8 + 255 * 16;

/** Whether other subvolumes are nested in the one at `path`; asked of the kernel, for a process with each snapshot would cost more than the
 * snapshot. @see linux/btrfs.h */
export function subvolumeHasChildren(path: string): boolean {
  const fd = check(`open "${path}"`, libc.open(cString(path), O_DIRECTORY | O_CLOEXEC, 0));
  try {
    const argument = new Uint8Array(argumentBytes);
    // A full answer (more than 255) is EOVERFLOW: there are some, then.
    return Number(libc.ioctl(fd, BTRFS_IOC_GET_SUBVOL_ROOTREF, argument)) < 0 || argument[countOffset]! > 0;
  } finally {
    libc.close(fd);
  }
}
