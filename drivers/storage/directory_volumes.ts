import { chmod, chown, lstat, mkdir, rename, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Host } from "../host/host.ts";
import { type CreateOptions, InUse, type Pool, type Volume } from "./driver.ts";
import { describe, directoryOf, snapshotsDirectory, volumeModeDefault } from "./layout.ts";

/** What drivers have in common whose volumes are directories of one mounted tree (dir, btrfs). */

export function pathOf(pool: Pool, volume: Volume): string {
  return join(pool.root, directoryOf(volume));
}

export async function setOwner(path: string, options: CreateOptions): Promise<void> {
  if ((options.uid ?? 0) !== 0 || (options.gid ?? 0) !== 0) await chown(path, options.uid ?? 0, options.gid ?? 0);
  await chmod(path, options.mode ?? volumeModeDefault);
}

export async function pathExists(path: string): Promise<boolean> {
  return await lstat(path).then(() => true, (error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return false;
    throw error;
  });
}

/** The directory that holds a snapshot; made with the first one. */
export async function makeParent(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
}

/** Takes the directory of a volume's snapshots away once it is empty. */
export async function dropEmptyParent(path: string): Promise<void> {
  await rmdir(dirname(path)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOTEMPTY" && error.code !== "ENOENT") throw error;
  });
}

/** Renames a volume and its snapshots' directory. A second call after a kill between the two finishes the work. */
export async function renameVolume(pool: Pool, volume: Volume, name: string): Promise<void> {
  const target = { ...volume, name };
  const from = join(pool.root, snapshotsDirectory(volume));
  if (await pathExists(from)) await rename(from, join(pool.root, snapshotsDirectory(target)));
  if (await pathExists(pathOf(pool, volume))) await rename(pathOf(pool, volume), pathOf(pool, target));
}

/** Unmounts what is below a pool's root, the innermost first. @param type Of filesystem; any when absent. */
export async function unmountBelow(host: Host, root: string, type?: string): Promise<void> {
  for (const one of (await host.mounts.list()).toReversed()) {
    if (one.target.startsWith(`${root}/`) && (type === undefined || one.type === type)) {
      await host.mounts.unmount(one.target);
    }
  }
}

/** @param sources What mountinfo names as the source of the volume and its snapshots. @throws {InUse} When one is mounted outside of the pool. */
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
