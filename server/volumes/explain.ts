import { existsSync } from "node:fs";
import { LidoError, messageOf } from "../../api/errors.ts";
import { fromDisk } from "../../drivers/storage/layout.ts";
import type { Pools } from "../pools/pools.ts";

/** Paths of volumes and snapshots in a pool, as the layout has them, at the beginning of a text. */
const place = /^\/((custom|containers)(?:\/([^/"']+)|-snapshots\/([^/"']+)\/([^/"']+)))/;

/** @returns What a failure that nobody has put into words says to a user, where it says something of a pool or a volume: the pool is away, or somebody
 * has deleted the volume behind the daemon's back. Else the failure itself. */
export function explainer(pools: Pick<Pools, "sources" | "names" | "rootOf">): (error: unknown) => unknown {
  return (error) => {
    const explained = pools.sources.explain(error), gone = missing(error);
    if (explained !== error || gone === undefined) return explained;
    const text = messageOf(gone);
    for (const pool of pools.names()) {
      const root = pools.rootOf(pool);
      if (root === undefined || !text.includes(root)) continue;
      const found = place.exec(text.slice(text.indexOf(root) + root.length));
      if (!found || existsSync(`${root}/${found[1]}`)) continue;
      const [, , directory, whole, parent, snapshot] = found;
      const type = directory === "custom" ? "custom" : "container";
      const name = fromDisk({ type, name: (whole ?? parent)! });
      const what = snapshot === undefined ? `Volume "${name}"` : `Snapshot "${snapshot}" of volume "${name}"`;
      const why = `${what} of storage pool "${pool}" is known but not on disk: "${root}/${found[1]}"`;
      // What was said around it stays.
      const told = messageOf(error).replace(text, () => `${why}; see "lido admin check"`);
      return new LidoError("bad_request", told, { cause: error });
    }
    return error;
  };
}

/** @returns Of a failure and its causes, that which misses a file. */
function missing(error: unknown): unknown {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if ((cause as { code?: unknown }).code === "ENOENT") return cause;
  }
  return undefined;
}
