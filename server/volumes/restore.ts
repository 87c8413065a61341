import type { Snapshots, Volume } from "../../drivers/storage/driver.ts";

/** Completes an interrupted restore that has begun to delete later snapshots: that cannot be undone, and their records must not outlive them.
 * @param lost Names of the snapshots that the restore deletes. @returns Whether it had begun; otherwise nothing was deleted, and nothing is done. */
export async function endRestore(facet: Snapshots, snapshot: Volume, lost: readonly string[]): Promise<boolean> {
  if (lost.length === 0) return false;
  const present = await facet.list({ type: snapshot.type, name: snapshot.name });
  if (lost.every((one) => present.includes(one))) return false;
  await facet.restore(snapshot, lost.filter((one) => present.includes(one)));
  return true;
}
