import type { Host } from "../host/host.ts";
import { InUse, type Pool, type Volume } from "./driver.ts";
import { describe } from "./layout.ts";

/** Code shared by the drivers whose volumes are filesystems, each with a mount of its own (lvm, zfs). */

/** Unmounts everything below a pool's root, the innermost first. @param type Of filesystem; any when absent. */
export async function unmountBelow(host: Host, root: string, type?: string): Promise<void> {
  for (const one of (await host.mounts.list()).toReversed()) {
    if (one.target.startsWith(`${root}/`) && (type === undefined || one.type === type)) {
      await host.mounts.unmount(one.target);
    }
  }
}

/** @param sources Mount sources of the volume and its snapshots, as in mountinfo. @throws {InUse} When one is mounted outside of the pool. */
export async function refuseMountedElsewhere(
  host: Host,
  { root }: Pick<Pool, "root">,
  volume: Volume,
  isSource: (source: string) => boolean,
): Promise<void> {
  const found = (await host.mounts.list()).find(({ source, target }) =>
    isSource(source) && !target.startsWith(`${root}/`)
  );
  if (found) throw new InUse(describe(volume), `it is mounted at "${found.target}"`);
}
