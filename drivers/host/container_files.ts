import { rmdirSync } from "node:fs";
import { posix } from "node:path";
import { openBeneath } from "./beneath.ts";
import { closeFd } from "./process.ts";

const O_PATH = 0x200000;

/** Removes an empty directory in a container's own mount namespace; one that is not there, or not empty, is no error: it is the container's.
 * @param pid Of its init. @param path Absolute, within. No symlink is followed. */
export function removeDirectoryWithin(pid: number, path: string): void {
  try {
    const parent = openBeneath(`/proc/${pid}/root`, posix.dirname(path), { flags: O_PATH });
    try {
      rmdirSync(`/proc/self/fd/${parent}/${posix.basename(path)}`);
    } finally {
      closeFd(parent);
    }
  } catch { /* what stays is an empty directory */ }
}
