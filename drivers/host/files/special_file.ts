import { check, cString, libc } from "../ffi/libc.ts";

const S_IFCHR = 0o020000;
const nullDevice = 0x103;

/** Makes a device node like /dev/null, to be given to a container instead of the host's. @see null(4) */
export function makeNullDevice(path: string): void {
  check(`make a null device at ${path}`, libc.mknod(cString(path), S_IFCHR | 0o666, nullDevice));
}
