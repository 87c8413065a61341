import { statfs } from "node:fs/promises";
import type { Driver, Volume } from "../../../drivers/storage/driver.ts";

/** How many files and directories a mounted volume has; undefined where only a walk could tell: btrfs and a `dir` pool without project quotas count bytes
 * alone. A change of owners in one walk has no percentage there: a walk to count first would take as long as the work. */
export async function fileCount(driver: Driver, volume: Volume): Promise<number | undefined> {
  try {
    if (!driver.mountsVolumes) return await driver.facets.quota?.usedInodes?.(volume);
    const { files, ffree } = await statfs(driver.path(volume));
    return files > ffree ? files - ffree : undefined;
  } catch {
    return undefined; // it is only to be shown
  }
}
