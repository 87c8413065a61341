import { mkdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import { CommandError, type Host } from "../../host/host.ts";
import { wipeDevice } from "../block_device.ts";
import type { Driver, OpenOptions, Pool, Resize } from "../driver.ts";
import { isTrue } from "../keys.ts";
import { makeDirectories, temporaryPrefix } from "../layout.ts";
import { checkGrowth, growFile, makeLoopFile, removeLoopFile } from "../loop_file.ts";
import { removeTree } from "../tree.ts";
import { unmountBelow } from "../volume_mounts.ts";
import { ZfsDriver } from "./driver.ts";
import { initialDatasets, names } from "./layout.ts";
import { isModuleMissing, loadModule } from "./module.ts";
import { type Dataset, reasonOf } from "./output.ts";
import { datasetDefaults } from "./properties.ts";
import { notEmpty, type Owner, ownerOf, ownerProperties, ownerProperty, type Ownership } from "./owner.ts";
import { sourceOf } from "./source.ts";
import { type Properties, ZfsTool } from "./tool.ts";

/** Making, opening and destroying pools. */

export async function createPool(host: Host, pool: Pool): Promise<Driver> {
  const tool = new ZfsTool(host);
  const source = sourceOf(pool), top = names.top(pool);
  if (source.is === "existing") {
    await adopt(tool, pool);
    return await openPool(host, pool);
  }
  if (source.is === "file") await makeLoopFile(pool.diskFile, pool.config.size!);
  const mayWipe = source.is === "devices" && isTrue(pool.config["source.wipe"]);
  if (mayWipe) { for (const device of source.devices) await wipeDevice(host, device); }
  const words = (pool.config["zfs.create_options"] ?? "").split(" ").filter(Boolean);
  const datasets = { compression: "on", ...datasetDefaults };
  await tool.createPool(top, source.is === "file" ? [pool.diskFile] : source.vdevs, {
    properties: without({ autotrim: "on" }, words),
    datasets: { ...without(datasets, words), ...ownerProperties(pool, "zpool") },
    words,
    force: mayWipe,
  });
  return await openPool(host, pool);
}

/** Removes properties that the user's own arguments set. */
function without(properties: Properties, words: readonly string[]): Properties {
  return Object.fromEntries(
    Object.entries(properties).filter(([name]) => !words.some((word) => word.startsWith(`${name}=`))),
  );
}

/** Makes the dataset, or takes over an existing empty pool or dataset. */
async function adopt(tool: ZfsTool, pool: Pool): Promise<void> {
  const top = names.top(pool), zpool = names.zpool(top);
  const isImported = !await tool.exists(zpool) && await importPool(tool, pool);
  try {
    const found = await tool.names(top);
    if (found.length > 1) throw notEmpty(top);
    if (found.length === 0) await tool.create(top, { ...datasetDefaults, ...ownerProperties(pool, "dataset") });
    else await tool.set(top, ownerProperties(pool, "contents"));
  } catch (error) {
    if (isImported) await tool.exportPool(zpool);
    throw error;
  }
}

/** @returns true. @throws {LidoError} unavailable. */
async function importPool(tool: ZfsTool, pool: Pool): Promise<true> {
  const zpool = names.zpool(names.top(pool));
  const isFile = sourceOf(pool).is === "file";
  if (isFile && !await stat(pool.diskFile).then(() => true, () => false)) {
    throw new LidoError("unavailable", `Source path '${pool.diskFile}' doesn't exist`);
  }
  // No other host uses the file, whatever host is recorded in it; another host may use a disk.
  const options = isFile ? { directory: dirname(pool.diskFile), force: true } : {};
  let isFound: boolean;
  try {
    isFound = await tool.importPool(zpool, options);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    throw new LidoError("unavailable", `Cannot import ZFS pool "${zpool}": ${reasonOf(error.stderr) || error.message}`);
  }
  if (!isFound) throw new LidoError("unavailable", `Cannot import ZFS pool "${zpool}": no such pool available`);
  return true;
}

/** Opens an existing pool: imports it if need be. Unless `readOnly`, also makes missing datasets of the layout and cleans up after interrupted
 * operations. */
export async function openPool(host: Host, pool: Pool, { readOnly = false }: OpenOptions = {}): Promise<Driver> {
  const tool = new ZfsTool(host);
  const top = names.top(pool);
  const owner = await findOwner(host, tool, pool);
  const found = await tool.list(top);
  if (!readOnly) {
    // LXD made it, or the directory was moved: its content is ours now, and the whole ZFS pool if it is on our file.
    const made = owner.made ?? (sourceOf(pool).is === "file" ? "zpool" : "contents");
    if (owner.root !== pool.root) await tool.set(top, ownerProperties(pool, made));
    await makeInitial(tool, top, owner.made, found);
  }
  await mkdir(pool.root, { recursive: true, mode: 0o700 });
  await makeDirectories(pool.root);
  const driver = new ZfsDriver(host, pool, tool, {
    // With `readOnly` the dataset for this test may be missing.
    idmappedMounts: (!readOnly || found.some(({ name }) => name === `${top}/custom`)) && await canIdmap(host, pool),
    ...(sourceOf(pool).is === "file" ? { resize: resize(tool, pool) } : {}),
  });
  if (!readOnly) await driver.clean(found);
  return driver;
}

/** @returns Which storage pool owns it, and how much of it. @throws {LidoError} unavailable when it is missing, or another's. */
async function findOwner(host: Host, tool: ZfsTool, pool: Pool): Promise<Ownership> {
  const top = names.top(pool);
  const find = () => ownerOf(tool, pool);
  let found = await find().catch(async (error) => {
    if (!(await loadModule(host, error))) throw error;
    return await find();
  });
  if (!found.exists) {
    if (await tool.exists(names.zpool(top))) {
      throw new LidoError("unavailable", "ZFS zpool exists but dataset is missing");
    }
    await importPool(tool, pool);
    found = await find();
    if (!found.exists) throw new LidoError("unavailable", "ZFS zpool exists but dataset is missing");
  }
  if (found.root !== undefined && found.root !== pool.root) {
    // The daemon's directory may have been moved; but if the old one exists, another daemon has the pool.
    if (await stat(found.root).then(() => true, () => false)) {
      throw new LidoError("unavailable", `ZFS dataset "${top}" is in use by the storage pool at "${found.root}"`);
    }
  }
  return found;
}

async function makeInitial(
  tool: ZfsTool,
  top: string,
  owner: Owner | undefined,
  found: readonly Dataset[],
): Promise<void> {
  const present = new Set(found.map(({ name }) => name));
  const inherits = owner === "zpool" || owner === "dataset";
  for (const one of initialDatasets) {
    if (present.has(`${top}/${one}`)) continue;
    await tool.create(`${top}/${one}`, inherits || one.includes("/") ? {} : datasetDefaults);
  }
}

/** Tries it on a dataset of the pool: ZFS can since 2.2. */
async function canIdmap(host: Host, pool: Pool): Promise<boolean> {
  const place = join(pool.root, `${temporaryPrefix}probe`);
  await host.mounts.unmount(place); // left by a killed daemon
  await mkdir(place, { recursive: true, mode: 0o700 });
  try {
    await host.mounts.mount(`${names.top(pool)}/custom`, place, "zfs");
    return await host.mounts.canIdmap(place);
  } finally {
    await host.mounts.unmount(place);
    await removeTree(host, place);
  }
}

function resize(tool: ZfsTool, pool: Pool): Resize {
  return {
    check: (sizeBytes) => checkGrowth(pool.diskFile, sizeBytes),
    grow: async (sizeBytes) => {
      await growFile(pool.diskFile, sizeBytes);
      await tool.expand(names.zpool(names.top(pool)), pool.diskFile);
    },
  };
}

/** Destroys a pool in any state. A dataset that is not marked as this storage pool's stays, whatever its name. */
export async function destroyPool(host: Host, pool: Pool): Promise<void> {
  const tool = new ZfsTool(host);
  const source = sourceOf(pool), top = names.top(pool);
  await unmountBelow(host, pool.root, "zfs");
  const made = await findMade(host, tool, pool);
  if (made === "zpool") await tool.destroyPool(top);
  if (made === "dataset" && !await tool.destroy(top)) {
    throw new LidoError("bad_request", `Cannot destroy ZFS dataset "${top}": other datasets were cloned from it`);
  }
  if (made === "contents") await destroyContents(tool, top);
  if (source.is === "file") await removeLoopFile(host, pool.diskFile);
  await removeTree(host, pool.root);
}

/** @returns Which part this storage pool made; undefined for none. */
async function findMade(host: Host, tool: ZfsTool, pool: Pool): Promise<Owner | undefined> {
  if (!await host.which("zfs")) return undefined;
  const find = async () => {
    const { made, root, isOwn } = await ownerOf(tool, pool);
    return isOwn && root === pool.root ? made : undefined;
  };
  try {
    const made = await find();
    const isFile = sourceOf(pool).is === "file";
    // An exported pool on a file needs only the file's deletion; one on disks must be imported to be destroyed.
    if (made !== undefined || isFile || await tool.exists(names.zpool(names.top(pool)))) return made;
    if (!await tool.importPool(names.zpool(names.top(pool)))) return undefined;
    return await find();
  } catch (error) {
    if (await loadModule(host, error).catch(() => false)) return await findMade(host, tool, pool);
    if (sourceOf(pool).is === "file" && isModuleMissing(error)) return undefined;
    throw error;
  }
}

/** Destroys our datasets in an existing pool. @throws {LidoError} bad_request when a foreign dataset was cloned from one. */
async function destroyContents(tool: ZfsTool, top: string): Promise<void> {
  const foreign = (await tool.list(top)).filter(({ name }) => names.isOurs(top, name) && name !== top)
    .flatMap(({ clones }) => clones).find((clone) => !names.isOurs(top, clone));
  if (foreign !== undefined) {
    throw new LidoError("bad_request", `Cannot empty ZFS dataset "${top}": "${foreign}" was cloned from it`);
  }
  for (const one of initialDatasets.filter((one) => !one.includes("/"))) await tool.destroyWithClones(`${top}/${one}`);
  await tool.inherit(top, ownerProperty);
}
