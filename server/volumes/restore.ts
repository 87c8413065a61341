import type { Snapshots, Volume } from "../../drivers/storage/driver.ts";

/** Ends a restore that was cut off, when it has begun to take later snapshots away: there is no way back from that, and their records must not
 * outlive them. @param lost Those that go with it. @returns Whether it was so; otherwise nothing was lost, and nothing is done here. */
export async function endRestore(facet: Snapshots, snapshot: Volume, lost: readonly string[]): Promise<boolean> {
  if (lost.length === 0) return false;
  const present = await facet.list({ type: snapshot.type, name: snapshot.name });
  if (lost.every((one) => present.includes(one))) return false;
  await facet.restore(snapshot, lost.filter((one) => present.includes(one)));
  return true;
}
