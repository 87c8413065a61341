import { chmod, chown, lstat, mkdir, rename, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { CreateOptions, Pool, Volume } from "./driver.ts";
import { directoryOf, snapshotsDirectory, volumeModeOf } from "./layout.ts";

/** What drivers have in common whose volumes are directories of one mounted tree (dir, btrfs). */

export function pathOf(pool: Pool, volume: Volume): string {
  return join(pool.root, directoryOf(volume));
}

export async function setOwner(path: string, volume: Volume, options: CreateOptions): Promise<void> {
  if ((options.uid ?? 0) !== 0 || (options.gid ?? 0) !== 0) await chown(path, options.uid ?? 0, options.gid ?? 0);
  await chmod(path, options.mode ?? volumeModeOf(volume));
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

/** Takes the directory of a volume's snapshots away once it is empty. @returns Whether it went. */
export async function dropEmptyParent(path: string): Promise<boolean> {
  return await rmdir(dirname(path)).then(() => true, (error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOTEMPTY" && error.code !== "ENOENT") throw error;
    return false;
  });
}

/** Renames a volume and its snapshots' directory. A second call after a kill between the two finishes the work. */
export async function renameVolume(pool: Pool, volume: Volume, name: string): Promise<void> {
  const target = { ...volume, name };
  const from = join(pool.root, snapshotsDirectory(volume));
  if (await pathExists(from)) await rename(from, join(pool.root, snapshotsDirectory(target)));
  if (await pathExists(pathOf(pool, volume))) await rename(pathOf(pool, volume), pathOf(pool, target));
}
