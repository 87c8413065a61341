import { open, readdir, rmdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { LidoError } from "../../api/errors.ts";
import type { FoundPool } from "../../api/types.ts";
import type { Pool } from "../../drivers/storage/driver.ts";
import { recordsDirectory } from "../../drivers/storage/layout.ts";

/** Finds pools that are on disk but not in the database ("not known"). */

const parts = new Set([
  recordsDirectory,
  "containers",
  "containers-snapshots",
  "custom",
  "custom-snapshots",
  "images",
  // LXD's.
  "virtual-machines",
  "buckets",
]);

/** Whether a directory has the layout of a pool, as lido or LXD make it. */
export async function holdsPool(directory: string): Promise<boolean> {
  const names = await readdir(directory).catch(() => []);
  return names.some((name) => parts.has(name));
}

/** Refuses the name of a pool that is on disk but not known: the rollback of a failed creation would delete that pool.
 * @throws {LidoError} conflict. */
export async function refuseFound(pool: Pool): Promise<void> {
  const { source } = pool.config;
  const found = source === pool.diskFile
    ? await stat(pool.diskFile).then(() => pool.diskFile, () => undefined)
    : source === pool.root
    ? await filled(pool.root)
    : undefined;
  if (found === undefined) return;
  throw new LidoError(
    "conflict",
    `Storage pool "${pool.name}" is on disk but not known, at "${found}"; see "lido admin recover"`,
  );
}

/** @returns The first of a pool's directories that is not empty. */
async function filled(root: string): Promise<string | undefined> {
  for (const part of parts) {
    const path = join(root, part);
    if ((await readdir(path).catch(() => [])).length > 0) return path;
  }
  return undefined;
}

/** @returns Where a pool is: the given source, the loop file of its name, or its own directory.
 * @throws {LidoError} bad_request when nothing is there, or a directory without the layout of a pool: none is created in it. */
export async function findSource(pool: Pool): Promise<string> {
  const isFile = (path: string) => stat(path).then((info) => info.isFile(), () => false);
  const source = pool.config.source || (await isFile(pool.diskFile) ? pool.diskFile : pool.root);
  // A volume group or a ZFS pool: the driver looks for it.
  if (!source.startsWith("/")) return source;
  const info = await stat(source).catch(() => undefined);
  if (!info && source.includes(",")) return source; // several devices of a ZFS pool
  if (!info) throw new LidoError("bad_request", `Source path '${source}' doesn't exist`);
  if (info.isFile() && source !== pool.diskFile) {
    throw new LidoError("bad_request", `Source path '${source}' is a file: move it to '${pool.diskFile}' first`);
  }
  if (info.isDirectory() && !await holdsPool(source)) {
    throw new LidoError("bad_request", `Source path '${source}' holds no storage pool`);
  }
  return source;
}

/** Removes the empty directories that were made to open a pool for a look; others are not ours. */
export async function removeEmpty(root: string): Promise<void> {
  const names = await readdir(root).catch(() => []);
  for (const path of [...names.map((name) => join(root, name)), root]) await rmdir(path).catch(() => {});
}

/** @returns The driver of a loop file, by its signature; undefined when it has none that we know. */
export async function driverOfFile(file: string): Promise<string | undefined> {
  const handle = await open(file, "r");
  try {
    const at = async (offset: number, bytes: number) =>
      (await handle.read(Buffer.alloc(bytes), 0, bytes, offset)).buffer.toString("latin1");
    if (await at(0x10040, 8) === "_BHRfS_M") return "btrfs";
    if (await at(512, 8) === "LABELONE") return "lvm";
    // The first vdev label's name-value list names its pool.
    if ((await at(0x4000, 0x1000)).includes("pool_guid")) return "zfs";
    return undefined;
  } finally {
    await handle.close();
  }
}

/** Finds the pools that this host had, or that are in our directories, except those named in `known`. A loop file wins over the directory that it
 * was mounted at.
 * @param noted Pools that an earlier daemon recorded. @param isThere Whether something is at a path of the host that may not answer. */
export async function findPools(
  paths: { readonly storagePools: string; readonly disks: string },
  noted: readonly FoundPool[],
  known: ReadonlySet<string>,
  isThere: (path: string) => Promise<boolean>,
): Promise<FoundPool[]> {
  const found = new Map<string, FoundPool>();
  for (const pool of noted.filter(({ name }) => !known.has(name))) {
    const { source = "" } = pool.config;
    if (!source.startsWith("/") || source.includes(",") || await isThere(source)) found.set(pool.name, pool);
  }
  for (const file of (await readdir(paths.disks)).sort()) {
    const name = /^(.+)\.img$/.exec(file)?.[1];
    if (name === undefined || known.has(name) || found.has(name)) continue;
    const source = join(paths.disks, file);
    const driver = await driverOfFile(source);
    if (driver !== undefined) found.set(name, { name, driver, config: { source } });
  }
  for (const name of (await readdir(paths.storagePools)).sort()) {
    const source = join(paths.storagePools, name);
    if (known.has(name) || found.has(name) || !await isThere(source) || !await holdsPool(source)) continue;
    found.set(name, { name, driver: "dir", config: { source } });
  }
  return [...found.values()].sort((one, other) => one.name < other.name ? -1 : 1);
}
