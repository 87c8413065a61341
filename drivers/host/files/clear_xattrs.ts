import { check, cString, errno, libc, SystemCallError } from "../ffi/libc.ts";
import { constants } from "node:os";

const listMaxBytes = 65_536;

/** Removes extended attributes, access lists included, of one file; a symbolic link is not followed.
 * @param path A trusted host path. @param isKept Called with each name. */
export function clearXattrs(path: string, isKept: (name: string) => boolean): void {
  const file = cString(path), list = new Uint8Array(listMaxBytes);
  const length = Number(libc.llistxattr(file, list, list.length));
  if (length < 0 && errno() === constants.errno.EOPNOTSUPP) return;
  check(`list the attributes of "${path}"`, length);
  const names = Buffer.from(list.subarray(0, length)).toString("latin1").split("\0").filter(Boolean);
  for (const name of names.filter((one) => !isKept(one))) {
    const result = Number(libc.lremovexattr(file, new Uint8Array(Buffer.from(`${name}\0`, "latin1"))));
    // The kernel also lists attributes that the file does not store, such as those that a security module computes.
    if (result < 0 && ![constants.errno.ENODATA, constants.errno.EOPNOTSUPP].includes(errno())) {
      throw new SystemCallError(`remove attribute "${name}" of "${path}"`, errno());
    }
  }
}
