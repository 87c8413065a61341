import { LidoError } from "../../../api/errors.ts";
import type { Pool } from "../driver.ts";
import { names } from "./layout.ts";
import type { Properties, ZfsTool } from "./tool.ts";

/** Which part of the dataset `zfs.pool_name` a storage pool has made: the whole ZFS pool, the dataset, or only its content. */
export type Owner = "zpool" | "dataset" | "contents";

/** Set on the dataset to `OWNER ROOT`, where ROOT is the storage pool's root: so a dataset that only has the name of a storage pool's is never
 * destroyed. */
export const ownerProperty = "lido:pool";

export function ownerProperties(pool: Pick<Pool, "root">, made: Owner): Properties {
  return { [ownerProperty]: `${made} ${pool.root}` };
}

export interface Ownership {
  readonly exists: boolean;
  readonly made?: Owner;
  readonly root?: string;
  /** Whether it is set on the dataset itself, not inherited. */
  readonly isOwn?: boolean;
}

/** @param dataset Default: the pool's. */
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
