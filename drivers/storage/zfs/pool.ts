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

/** What was asked for by the user need not be said by us. */
function without(properties: Properties, words: readonly string[]): Properties {
  return Object.fromEntries(
    Object.entries(properties).filter(([name]) => !words.some((word) => word.startsWith(`${name}=`))),
  );
}

/** Takes a pool or dataset that is there and empty; or makes the dataset. */
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
  // Nobody else has the file, whatever it says of the host that had it last; a disk another host may have.
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

/** Opens a pool that was made before: imports it if need be; and makes what is missing of the layout and takes away what was cut off, unless it is
 * only to be looked at. */
export async function openPool(host: Host, pool: Pool, { readOnly = false }: OpenOptions = {}): Promise<Driver> {
  const tool = new ZfsTool(host);
  const top = names.top(pool);
  const owner = await findOwner(host, tool, pool);
  const found = await tool.list(top);
  if (!readOnly) {
    // Made by LXD, or before the directory was moved: what is in it is ours now, and all of it when its file is.
    const made = owner.made ?? (sourceOf(pool).is === "file" ? "zpool" : "contents");
    if (owner.root !== pool.root) await tool.set(top, ownerProperties(pool, made));
    await makeInitial(tool, top, owner.made, found);
  }
  await mkdir(pool.root, { recursive: true, mode: 0o700 });
  await makeDirectories(pool.root);
  const driver = new ZfsDriver(host, pool, tool, {
    // A dataset to try it on may be missing in what is only looked at.
    idmappedMounts: (!readOnly || found.some(({ name }) => name === `${top}/custom`)) && await canIdmap(host, pool),
    ...(sourceOf(pool).is === "file" ? { resize: resize(tool, pool) } : {}),
  });
  if (!readOnly) await driver.clean(found);
  return driver;
}

/** @returns How much of it is whose. @throws {LidoError} unavailable when it is not there, or another's. */
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
    // The directory of the daemon may have been moved; but if it is there, another daemon has the pool.
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

/** Tried on a dataset of the pool: ZFS has it since 2.2. */
async function canIdmap(host: Host, pool: Pool): Promise<boolean> {
  const place = join(pool.root, `${temporaryPrefix}probe`);
  await host.mounts.unmount(place); // of a daemon that was killed
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

/** Takes a pool off, in whatever state. What is not marked as this storage pool's stays, whatever its name. */
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

/** @returns undefined when there is nothing of ours. */
async function findMade(host: Host, tool: ZfsTool, pool: Pool): Promise<Owner | undefined> {
  if (!await host.which("zfs")) return undefined;
  const find = async () => {
    const { made, root, isOwn } = await ownerOf(tool, pool);
    return isOwn && root === pool.root ? made : undefined;
  };
  try {
    const made = await find();
    const isFile = sourceOf(pool).is === "file";
    // A file that is exported just goes; what is on disks must be imported to go.
    if (made !== undefined || isFile || await tool.exists(names.zpool(names.top(pool)))) return made;
    if (!await tool.importPool(names.zpool(names.top(pool)))) return undefined;
    return await find();
  } catch (error) {
    if (await loadModule(host, error).catch(() => false)) return await findMade(host, tool, pool);
    if (sourceOf(pool).is === "file" && isModuleMissing(error)) return undefined;
    throw error;
  }
}

/** Ours of what was there before. @throws {LidoError} bad_request when somebody else has cloned from it. */
async function destroyContents(tool: ZfsTool, top: string): Promise<void> {
  const foreign = (await tool.list(top)).filter(({ name }) => names.isOurs(top, name) && name !== top)
    .flatMap(({ clones }) => clones).find((clone) => !names.isOurs(top, clone));
  if (foreign !== undefined) {
    throw new LidoError("bad_request", `Cannot empty ZFS dataset "${top}": "${foreign}" was cloned from it`);
  }
  for (const one of initialDatasets.filter((one) => !one.includes("/"))) await tool.destroyWithClones(`${top}/${one}`);
  await tool.inherit(top, ownerProperty);
}
