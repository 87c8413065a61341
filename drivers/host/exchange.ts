import { check, cString, libc } from "./libc.ts";

const AT_FDCWD = -100, RENAME_EXCHANGE = 2;

/** Swaps two paths of one filesystem at one moment: there is never neither of them. @see renameat2(2) */
export function exchange(one: string, other: string): void {
  check(
    `exchange "${one}" and "${other}"`,
    libc.renameat2(AT_FDCWD, cString(one), AT_FDCWD, cString(other), RENAME_EXCHANGE),
  );
}
