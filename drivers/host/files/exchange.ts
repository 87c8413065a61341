import { existsSync, renameSync } from "node:fs";
import { check, cString, libc, SystemCallError } from "../ffi/libc.ts";

const AT_FDCWD = -100, RENAME_NOREPLACE = 1, RENAME_EXCHANGE = 2;

/** Swaps two paths of one filesystem atomically: both exist at all times. @see renameat2(2) */
export function exchange(one: string, other: string): void {
  check(
    `exchange "${one}" and "${other}"`,
    libc.renameat2(AT_FDCWD, cString(one), AT_FDCWD, cString(other), RENAME_EXCHANGE),
  );
}

/** Renames without replacing anything: rename(2) would replace an empty directory of the new name. @see renameat2(2)
 * @returns Whether it was renamed; false when the new name exists. @throws {SystemCallError} */
export function renameNew(from: string, to: string): boolean {
  try {
    check(
      `rename "${from}" to "${to}"`,
      libc.renameat2(AT_FDCWD, cString(from), AT_FDCWD, cString(to), RENAME_NOREPLACE),
    );
    return true;
  } catch (error) {
    const { code } = error as SystemCallError;
    if (code === "EEXIST" || code === "ENOTEMPTY") return false;
    if (code !== "EINVAL") throw error;
  }
  // A filesystem without this (NFS): check first, then rename.
  if (existsSync(to)) return false;
  renameSync(from, to);
  return true;
}
