import { chmod, chown, lstat, mkdir, readdir, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { renameNew } from "../host/files/exchange.ts";
import { AlreadyThere, type CreateOptions, type Pool, type Volume } from "./driver.ts";
import { describe, directoryOf, snapshotsDirectory, volumeModeOf } from "./layout.ts";

/** Code shared by the drivers whose volumes are directories of one mounted tree (dir, btrfs). */

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

/** @see Driver.unfit */
export async function unfitDirectory(pool: Pool, volume: Volume): Promise<string | undefined> {
  return (await lstat(pathOf(pool, volume))).isDirectory() ? undefined : "it is no directory";
}

/** Makes the directory that holds a volume's snapshots; the first snapshot needs it. */
export async function makeParent(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
}

/** Removes the directory of a volume's snapshots if it is empty. @returns Whether it was removed. */
export async function dropEmptyParent(path: string): Promise<boolean> {
  return await rmdir(dirname(path)).then(() => true, (error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOTEMPTY" && error.code !== "ENOENT") throw error;
    return false;
  });
}

/** @throws {AlreadyThere} When something exists at the place of a volume or snapshot that is to be made. */
export async function refuseThere(pool: Pool, volume: Volume): Promise<void> {
  if (await pathExists(pathOf(pool, volume))) throw new AlreadyThere(describe(volume));
}

/** Makes the directory of a volume or snapshot. @throws {AlreadyThere} */
export async function makeNew(pool: Pool, volume: Volume): Promise<void> {
  await mkdir(pathOf(pool, volume), { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    throw error.code === "EEXIST" ? new AlreadyThere(describe(volume)) : error;
  });
}

/** @returns Whether anything exists at the volume's place or in the directory of its snapshots. */
export async function isTaken(pool: Pool, volume: Volume): Promise<boolean> {
  return await pathExists(pathOf(pool, volume)) || await hasSnapshots(join(pool.root, snapshotsDirectory(volume)));
}

/** An empty directory does not count: a deleted volume may have left it. */
async function hasSnapshots(directory: string): Promise<boolean> {
  return await readdir(directory).then((names) => names.length > 0, (error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return false;
    if (error.code === "ENOTDIR") return true;
    throw error;
  });
}

/** Renames a volume and its snapshots' directory. After a kill between the two renames, a second call completes the work.
 * @throws {AlreadyThere} Before anything has changed. */
export async function renameVolume(pool: Pool, volume: Volume, name: string): Promise<void> {
  const target = { ...volume, name };
  const snapshots = join(pool.root, snapshotsDirectory(volume)),
    newSnapshots = join(pool.root, snapshotsDirectory(target));
  const hasVolume = await pathExists(pathOf(pool, volume)), hasOwn = await pathExists(snapshots);
  const refuse = () => {
    throw new AlreadyThere(describe(target));
  };
  if (hasVolume && await pathExists(pathOf(pool, target))) refuse();
  if (hasOwn && await hasSnapshots(newSnapshots)) refuse();
  await rmdir(newSnapshots).catch(() => {}); // an empty directory would make the rename fail
  if (hasOwn && !renameNew(snapshots, newSnapshots)) refuse();
  if (!hasVolume || renameNew(pathOf(pool, volume), pathOf(pool, target))) return;
  if (hasOwn) renameNew(newSnapshots, snapshots);
  refuse();
}

/** Renames a snapshot. @throws {AlreadyThere} */
export function renameSnapshot(pool: Pool, snapshot: Volume, name: string): void {
  const target = { ...snapshot, snapshot: name };
  if (!renameNew(pathOf(pool, snapshot), pathOf(pool, target))) throw new AlreadyThere(describe(target));
}
