import { existsSync } from "node:fs";
import { LidoError, messageOf } from "../../api/errors.ts";
import { fromDisk } from "../../drivers/storage/layout.ts";
import type { Pools } from "../pools/pools.ts";

/** Path of a volume or snapshot within a pool, at the beginning of a text. */
const place = /^\/((custom|containers)(?:\/([^/"']+)|-snapshots\/([^/"']+)\/([^/"']+)))/;

/** @returns A function that explains an unexpected failure to a user where it concerns a pool or a volume: the pool's filesystem is gone, or the
 * volume was deleted on disk without the daemon. It returns other failures as they are. */
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
      // Keep the text around the path's error.
      const told = messageOf(error).replace(text, () => `${why}; see "lido admin check"`);
      return new LidoError("bad_request", told, { cause: error });
    }
    return error;
  };
}

/** @returns The first of a failure and its causes that is ENOENT. */
function missing(error: unknown): unknown {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if ((cause as { code?: unknown }).code === "ENOENT") return cause;
  }
  return undefined;
}
