import { LidoError } from "../../../api/errors.ts";
import type { Pool } from "../driver.ts";
import { names } from "./layout.ts";
import type { Properties, ZfsTool } from "./tool.ts";

/** How much of the dataset `zfs.pool_name` a storage pool has made: the whole ZFS pool, the dataset, or only what is in it. */
export type Owner = "zpool" | "dataset" | "contents";

/** On the dataset, for everybody to see: `OWNER ROOT`, where ROOT is the place of the storage pool. So nothing is ever destroyed that only has
 * the name of what a storage pool had. */
export const ownerProperty = "lido:pool";

export function ownerProperties(pool: Pick<Pool, "root">, made: Owner): Properties {
  return { [ownerProperty]: `${made} ${pool.root}` };
}

export interface Ownership {
  readonly exists: boolean;
  readonly made?: Owner;
  readonly root?: string;
  /** Not inherited from a dataset above. */
  readonly isOwn?: boolean;
}

/** @param dataset The pool's when absent. */
export async function ownerOf(tool: ZfsTool, pool: Pool, dataset = names.top(pool)): Promise<Ownership> {
  const found = await tool.sourced(dataset, ownerProperty);
  if (!found) return { exists: false };
  const match = /^(zpool|dataset|contents) (.+)$/.exec(found.value);
  if (!match) return { exists: true };
  return { exists: true, made: match[1] as Owner, root: match[2]!, isOwn: found.source === "local" };
}

/** LXD's text. */
export function notEmpty(dataset: string): LidoError {
  return new LidoError(
    "bad_request",
    `Provided ZFS pool (or dataset) isn't empty, run "sudo zfs list -r ${dataset}" to see existing entries`,
  );
}
