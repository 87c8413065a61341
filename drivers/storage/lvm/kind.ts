import { lstat, mkdir, rm } from "node:fs/promises";
import { release } from "node:os";
import { isAbsolute } from "node:path";
import { LidoError, messageOf } from "../../../api/errors.ts";
import { parseSizeBytes, showUnequalBytes } from "../../../api/size.ts";
import { deviceBytes, refuseFilled, wipeDevice } from "../block_device.ts";
import type { Driver, DriverKind, Pool, Volume } from "../driver.ts";
import { anyText, boolean, integer, isTrue, size, words } from "../keys.ts";
import { makeDirectories } from "../layout.ts";
import { unmountBelow } from "../volume_mounts.ts";
import {
  attachLoopFile,
  checkGrowth,
  defaultSize,
  detachLoopFile,
  growLoopFile,
  makeLoopFile,
  removeLoopFile,
} from "../loop_file.ts";
import { LvmDriver, sizeDefault } from "./driver.ts";
import { LvmGroup } from "./group.ts";
import {
  groupName,
  isOurs,
  logicalName,
  parentOfTemporary,
  tagOf,
  tagPrefix,
  thinPoolName,
  volumeOf,
} from "./layout.ts";
import { thinStatus } from "./thin_status.ts";
import { type LogicalVolume, LvmTool } from "./tool.ts";

/** Room for a thin pool, its metadata twice, and a filesystem. */
const smallestBytes = 64n * 1024n * 1024n;
const tools = ["lvm", "vgcreate", "lvcreate"], thinTools = ["thin_check"];
/** Prefixes of the tags that mark a group as a storage pool's. */
const poolTags = ["lxd_pool", "incus_pool", tagPrefix];
/** How long the opening of a pool waits for LVM's lock that another process has. */
const openLimitMs = 20_000;
const groupPattern = /^[A-Za-z0-9_.+][\w.+-]{0,62}$/;
const filesystems = /^(ext4|xfs|btrfs)$/;

/** A volume group: on a loop file of ours, on a block device, or an existing one. */
export const lvmKind: DriverKind = {
  name: "lvm",
  packages: ["lvm2", "thin-provisioning-tools"],
  isBlock: true,
  poolKeys: {
    "source": {
      check: anyText,
      fixed: true,
      help: "Block device, or name of an existing volume group; default a loop file",
    },
    "source.wipe": { check: boolean, default: "false", fixed: true, help: "Whether the block device is wiped first" },
    "size": { check: size, help: "Size of the loop file; it can grow" },
    "lvm.vg_name": {
      check: (value) => groupPattern.test(value) ? undefined : `Invalid volume group name "${value}"`,
      fixed: true,
      help: "Name of the volume group; default the pool's",
    },
    "lvm.vg.force_reuse": {
      check: boolean,
      fixed: true,
      default: "false",
      help: "Whether a volume group that is not empty is used",
    },
    "lvm.use_thinpool": {
      check: boolean,
      default: "true",
      fixed: true,
      help: "Whether volumes are thin; classic logical volumes otherwise",
    },
    "lvm.thinpool_name": {
      check: (value) => groupPattern.test(value) ? undefined : `Invalid thin pool name "${value}"`,
      default: "LXDThinPool",
      fixed: true,
      help: "Name of the thin pool",
    },
    "lvm.thinpool_metadata_size": {
      check: size,
      default: "0",
      fixed: true,
      help: "Size of the thin pool's metadata; 0 lets LVM choose",
    },
    "rsync.bwlimit": {
      check: anyText,
      default: "0",
      help: "For LXD's pools: copies do not use rsync here, whatever it says",
    },
    "rsync.compression": {
      check: boolean,
      default: "true",
      help: "For LXD's pools: copies do not use rsync here, whatever it says",
    },
  },
  volumeKeys: {
    "block.filesystem": {
      check: (value) => filesystems.test(value) ? undefined : `Invalid value "${value}": ext4, xfs, btrfs are allowed`,
      default: "ext4",
      fixed: true,
      values: ["ext4", "xfs", "btrfs"],
      help: "Filesystem of the volume",
    },
    "block.mount_options": {
      check: words,
      default: "discard",
      effect: "next mount",
      help: "Mount options of the volume",
    },
    "block.create_options": { check: words, fixed: true, help: "Additional options of mkfs" },
    "lvm.stripes": { check: integer(1, 128), fixed: true, help: "Number of stripes of a classic volume" },
    "lvm.stripes.size": { check: size, fixed: true, help: "Size of a stripe" },
  },

  async probe(host) {
    for (const name of [...tools, ...thinTools]) {
      if (await host.which(name)) continue;
      const package_ = thinTools.includes(name) ? "thin-provisioning-tools" : "lvm2";
      return { missing: `"${name}" is not installed (Debian package ${package_})` };
    }
    try {
      return { version: await new LvmTool(host).version() };
    } catch (error) {
      return { missing: messageOf(error) };
    }
  },

  async plan(host, pool) {
    const { source, size } = pool.config;
    if (thinPoolName(pool) === undefined && pool.config["lvm.thinpool_name"]) {
      throw new LidoError(
        "bad_request",
        "The key lvm.use_thinpool cannot be set to a false value when lvm.thinpool_name is set",
      );
    }
    const isLoop = !source || source === pool.diskFile;
    if (!isLoop && size) {
      throw new LidoError(
        "bad_request",
        `Cannot set "size" with source "${source}": only a loop file has a size of its own`,
      );
    }
    const tool = new LvmTool(host);
    if (!isLoop && !isAbsolute(source)) return await planGroup(tool, pool, source);
    const name = groupName(pool);
    if (await tool.group(name)) {
      throw new LidoError("bad_request", `A volume group already exists called "${name}"`);
    }
    const planned = { ...pool.config, "lvm.vg_name": name };
    if (isLoop) {
      const wanted = size ?? await defaultSize(pool.diskFile);
      refuseSmall(`size "${wanted}"`, parseSizeBytes(wanted)!);
      return { ...planned, source: pool.diskFile, size: wanted };
    }
    refuseSmall(`device "${source}"`, await deviceBytes(source));
    if (!isTrue(pool.config["source.wipe"])) await refuseFilled(host, source);
    return planned;
  },

  async create(host, pool) {
    const tool = new LvmTool(host);
    const { source, size } = pool.config;
    const group = groupName(pool), tag = tagOf(pool);
    await mkdir(pool.root, { recursive: true, mode: 0o700 });
    if (source === pool.diskFile) {
      await makeLoopFile(pool.diskFile, size!);
      await tool.createGroup(group, await attachLoopFile(host, pool.diskFile), tag);
    } else if (isAbsolute(source!)) {
      if (isTrue(pool.config["source.wipe"])) await wipeDevice(host, source!);
      else await refuseFilled(host, source!);
      await tool.createGroup(group, source!, tag);
    } else {
      await tool.tagGroup(group, tag);
    }
    const thinPool = thinPoolName(pool);
    if (thinPool === undefined) return await this.open(host, pool);
    if (!(await tool.volumes(group))?.some(({ name }) => name === thinPool)) {
      const metadata = parseSizeBytes(pool.config["lvm.thinpool_metadata_size"] ?? "0");
      const stripes = pool.config["volume.lvm.stripes"];
      const stripeBytes = parseSizeBytes(pool.config["volume.lvm.stripes.size"] ?? "0");
      await tool.createThinPool(group, thinPool, {
        tag,
        ...(metadata ? { metadataBytes: metadata } : {}),
        ...(stripes ? { stripes } : {}),
        ...(stripeBytes ? { stripeBytes } : {}),
      });
    }
    await tool.failWhenFull(group, thinPool);
    return await this.open(host, pool);
  },

  async open(host, pool, { readOnly = false } = {}): Promise<Driver> {
    const { source } = pool.config;
    const isLoop = source === pool.diskFile;
    const tool = new LvmTool(host);
    const group = groupName(pool), thinPool = thinPoolName(pool);
    const device = isLoop ? await attachLoopFile(host, pool.diskFile) : source!;
    // Another process's lock must not delay the daemon's other pools: the opening of this one is retried.
    const found = await new LvmTool(host, { limitMs: openLimitMs }).group(group);
    const volumes = found && await tool.volumes(group);
    if (!volumes) throw new LidoError("unavailable", `Volume group "${group}" doesn't exist`);
    if (thinPool !== undefined) await activateThinPool(tool, pool, volumes);
    await mkdir(pool.root, { recursive: true, mode: 0o700 });
    await makeDirectories(pool.root);
    if (!readOnly) {
      // The tag is missing or old when LXD made the group, or the directory was moved.
      if (!found.tags.includes(tagOf(pool))) await tool.tagGroup(group, tagOf(pool));
      // Deactivate what a killed daemon left active; a volume that is open belongs to a running container.
      const idle = volumes.filter(({ name, isActive, isOpen }) => isActive && !isOpen && isOurs(name));
      await tool.deactivate(group, ...idle.map(({ name }) => name));
    }
    const logical = new LvmGroup(host, pool, tool, { volumes, extentBytes: found.extentBytes });
    const driver = new LvmDriver(logical, {
      // ext4, xfs and btrfs support idmapped mounts from this version on. @see mount_setattr(2)
      idmappedMounts: atLeast(release(), 5, 15),
      ...(isLoop
        ? {
          resize: {
            check: (sizeBytes) => checkGrowth(pool.diskFile, sizeBytes),
            grow: async (sizeBytes) => {
              await growLoopFile(host, pool.diskFile, sizeBytes);
              await tool.resizePhysical(device);
              if (thinPool === undefined) return;
              await tool.extendAll(group, thinPool);
              const grown = (await tool.volumes(group))?.find(({ name }) => name === thinPool);
              if (grown) logical.setSize(thinPool, grown.sizeBytes);
            },
          },
        }
        : {}),
      onClose: async () => {
        if (isLoop) {
          await tool.deactivateGroup(group);
          return await detachLoopFile(host, pool.diskFile);
        }
        // Others may have volumes in the group, which must stay active.
        await deactivateOurs(tool, pool, await tool.volumes(group) ?? []);
      },
    });
    if (!readOnly) await sweep(logical);
    return driver;
  },

  isInUse: async (host, pool) =>
    (await new LvmTool(host).volumes(groupName(pool)))?.some(({ isActive }) => isActive) ?? false,

  async destroy(host, pool, known = []) {
    const { source } = pool.config;
    const tool = new LvmTool(host);
    await unmountBelow(host, pool.root);
    if (source === pool.diskFile) {
      // Without the file nothing of the group can be found.
      if ((await host.loops.find(pool.diskFile)).length > 0 || await isThere(pool.diskFile)) {
        await attachLoopFile(host, pool.diskFile);
        await removeOurGroup(tool, pool);
      }
      await removeLoopFile(host, pool.diskFile);
    } else if (isAbsolute(source!)) {
      await tool.removePhysical(await removeOurGroup(tool, pool));
    } else {
      await leaveGroup(tool, pool, known);
    }
    await rm(pool.root, { recursive: true, force: true });
  },
};

/** Plans a pool in an existing group: it must be empty and no other pool's, unless `lvm.vg.force_reuse` is set. */
async function planGroup(tool: LvmTool, pool: Pool, source: string): Promise<Record<string, string>> {
  const name = pool.config["lvm.vg_name"] || source;
  if (name !== source) {
    throw new LidoError("bad_request", `Invalid combination of "source" and "lvm.vg_name" property`);
  }
  const group = await tool.group(name);
  if (!group) throw new LidoError("bad_request", `The requested volume group "${name}" does not exist`);
  const volumes = await tool.volumes(name) ?? [];
  const thinPool = thinPoolName(pool);
  if (volumes.some((one) => one.name === thinPool && !one.isThinPool)) {
    throw new LidoError("bad_request", `Logical volume "${thinPool}" of volume group "${name}" is not a thin pool`);
  }
  const listed = (found: readonly LogicalVolume[]) =>
    found.slice(0, 3).map((one) => one.name).join(", ") + (found.length > 3 ? ", …" : "");
  // Two pools would have volumes of the same names, and nothing tells their owners apart.
  const another = volumes.filter((one) => isOurs(one.name));
  if (another.length > 0) {
    throw new LidoError(
      "bad_request",
      `Volume group "${name}" has volumes of another storage pool: ${listed(another)}`,
    );
  }
  if (!isTrue(pool.config["lvm.vg.force_reuse"])) {
    const owner = group.tags.find((one) => poolTags.some((begin) => one.startsWith(begin)));
    if (owner) {
      throw new LidoError("bad_request", `Volume group "${name}" is already used by a storage pool (tag ${owner})`);
    }
    const foreign = volumes.filter((one) => one.name !== thinPool);
    if (foreign.length > 0) {
      throw new LidoError(
        "bad_request",
        `Volume group "${name}" is not empty: it has ${listed(foreign)}; see lvm.vg.force_reuse`,
      );
    }
  }
  return { ...pool.config, source, "lvm.vg_name": name };
}

/** Activates the thin pool, whose fill level can only be read while active. @throws {LidoError} unavailable when it is missing or has failed. */
async function activateThinPool(tool: LvmTool, pool: Pool, volumes: readonly LogicalVolume[]): Promise<void> {
  const group = groupName(pool), thinPool = thinPoolName(pool)!;
  const what = `Thin pool "${thinPool}" of volume group "${group}"`;
  const found = volumes.find(({ name }) => name === thinPool);
  if (!found?.isThinPool) throw new LidoError("unavailable", `${what} doesn't exist`);
  const mode = thinStatus(group, thinPool)?.mode;
  // After a failed write of its metadata, the kernel uses the thin pool again only after a new activation, which checks it.
  const isGivenUp = mode !== undefined && mode !== "rw" && mode !== "out_of_data_space";
  if (isGivenUp && !await deactivateOurs(tool, pool, volumes)) {
    throw new LidoError("unavailable", `${what} has failed (${mode}), and is in use: stop what uses it`);
  }
  if (isGivenUp || !found.isActive) await tool.activate(group, thinPool);
}

/** Deactivates the pool's volumes, then its thin pool. @returns Whether all of them are inactive. */
async function deactivateOurs(tool: LvmTool, pool: Pool, volumes: readonly LogicalVolume[]): Promise<boolean> {
  const thinPool = thinPoolName(pool);
  const active = volumes.filter(({ name, isActive }) => isActive && isOurs(name)).map(({ name }) => name);
  return await tool.deactivate(groupName(pool), ...active, ...(thinPool === undefined ? [] : [thinPool]));
}

/** Removes the pool's volume group if it has our tag. @returns The devices that it was on. */
async function removeOurGroup(tool: LvmTool, pool: Pool): Promise<readonly string[]> {
  const name = groupName(pool), found = await tool.group(name);
  if (!found?.tags.includes(tagOf(pool))) return [];
  await tool.removeGroup(name);
  return found.devices;
}

/** Removes what is ours from a foreign group: the known volumes, and the thin pool if we made it and no other volume is in it. */
async function leaveGroup(tool: LvmTool, pool: Pool, known: readonly Volume[]): Promise<void> {
  const group = groupName(pool), tag = tagOf(pool);
  if (!(await tool.group(group))?.tags.includes(tag)) return;
  const volumes = await tool.volumes(group) ?? [];
  const names = new Set(known.map((volume) => logicalName(group, volume)));
  const ours = volumes.filter(({ name }) => names.has(parentOfTemporary(name) ?? parentName(group, name) ?? ""));
  const isSnapshot = (name: string) => volumeOf(name)?.snapshot !== undefined;
  ours.sort((a, b) => Number(isSnapshot(b.name)) - Number(isSnapshot(a.name)));
  await tool.remove(group, ...ours.map(({ name }) => name));
  const left = volumes.filter((one) => !ours.includes(one));
  const thinPool = left.find((one) => one.isThinPool && one.name === thinPoolName(pool) && one.tags.includes(tag));
  if (thinPool && !left.some((one) => one.thinPool === thinPool.name)) await tool.remove(group, thinPool.name);
  await tool.untagGroup(group, tag);
}

/** @returns The logical name of the volume itself, or of a snapshot's parent. */
function parentName(group: string, name: string): string | undefined {
  const volume = volumeOf(name);
  return volume && logicalName(group, { type: volume.type, name: volume.name });
}

/** Cleans up after restores that a killed daemon left. */
async function sweep(group: LvmGroup): Promise<void> {
  for (const name of group.names()) {
    const parent = parentOfTemporary(name);
    if (parent !== undefined) await group.removeTemporary(name, parent);
  }
}

function refuseSmall(what: string, bytes: bigint): void {
  if (bytes >= smallestBytes) return;
  const [has, needed] = showUnequalBytes(bytes, smallestBytes);
  throw new LidoError(
    "bad_request",
    `Cannot use ${what}: it has ${has}, at least ${needed} are needed (a volume has ${sizeDefault} by default)`,
  );
}

function isThere(path: string): Promise<boolean> {
  return lstat(path).then(() => true, () => false);
}

function atLeast(version: string, major: number, minor: number): boolean {
  const [a = 0, b = 0] = version.split(".").map(Number);
  return a > major || (a === major && b >= minor);
}
