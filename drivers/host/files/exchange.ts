import { existsSync, renameSync } from "node:fs";
import { check, cString, libc, SystemCallError } from "../ffi/libc.ts";

const AT_FDCWD = -100, RENAME_NOREPLACE = 1, RENAME_EXCHANGE = 2;

/** Swaps two paths of one filesystem at one moment: there is never neither of them. @see renameat2(2) */
export function exchange(one: string, other: string): void {
  check(
    `exchange "${one}" and "${other}"`,
    libc.renameat2(AT_FDCWD, cString(one), AT_FDCWD, cString(other), RENAME_EXCHANGE),
  );
}

/** Renames, and replaces nothing: rename(2) takes an empty directory away that has the new name. @see renameat2(2)
 * @returns Whether it was renamed; no when something has the new name. @throws {SystemCallError} */
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
  // A filesystem that cannot (NFS): the next best.
  if (existsSync(to)) return false;
  renameSync(from, to);
  return true;
}
