import { statfs } from "node:fs/promises";
import type { Driver, Volume } from "../../../drivers/storage/driver.ts";

/** Number of files and directories in a mounted volume; undefined where only a walk could tell: btrfs and a `dir` pool without project quotas count
 * bytes alone. A change of owners in one pass shows no percentage there: counting first would take as long as the change. */
export async function fileCount(driver: Driver, volume: Volume): Promise<number | undefined> {
  try {
    if (!driver.mountsVolumes) return await driver.facets.quota?.usedInodes?.(volume);
    const { files, ffree } = await statfs(driver.path(volume));
    return files > ffree ? files - ffree : undefined;
  } catch {
    return undefined; // the count is only for display
  }
}
