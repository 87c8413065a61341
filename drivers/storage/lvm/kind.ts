import { lstat, mkdir, rm } from "node:fs/promises";
import { release } from "node:os";
import { isAbsolute } from "node:path";
import { LidoError, messageOf } from "../../../api/errors.ts";
import { parseSizeBytes } from "../../../api/size.ts";
import { deviceBytes, refuseFilled, wipeDevice } from "../block_device.ts";
import type { Driver, DriverKind, Pool } from "../driver.ts";
import { anyText, boolean, integer, isTrue, size, words } from "../keys.ts";
import { makeDirectories } from "../layout.ts";
import {
  attachLoopFile,
  defaultSize,
  detachLoopFile,
  growLoopFile,
  makeLoopFile,
  refuseShrink,
  removeLoopFile,
} from "../loop_file.ts";
import { LvmDriver, sizeDefault } from "./driver.ts";
import { groupName, parentOfTemporary, tag, thinPoolName, volumeOf } from "./layout.ts";
import { LvmTool } from "./tool.ts";

/** Room for a thin pool with its metadata, twice, and a filesystem. */
const smallestBytes = 64n * 1024n * 1024n;
const tools = ["lvm", "vgcreate", "lvcreate"], thinTools = ["thin_check"];
/** LXD's tag: a group that is its pool's. */
const foreignTags = ["lxd_pool", "incus_pool", tag];
const groupPattern = /^[A-Za-z0-9_.+][\w.+-]{0,62}$/;
const filesystems = /^(ext4|xfs|btrfs)$/;

/** A volume group: on a loop file of ours, on a block device, or one that is there. */
export const lvmKind: DriverKind = {
  name: "lvm",
  packages: ["lvm2", "thin-provisioning-tools"],
  poolKeys: {
    "source": {
      check: anyText,
      fixed: true,
      help: "Block device, or name of an existing volume group; default a loop file",
    },
    "source.wipe": { check: boolean, fixed: true, help: "Wipe the block device first" },
    "size": { check: size, help: "Size of the loop file; may grow" },
    "lvm.vg_name": {
      check: (value) => groupPattern.test(value) ? undefined : `Invalid volume group name "${value}"`,
      fixed: true,
      help: "Name of the volume group; default the pool's",
    },
    "lvm.vg.force_reuse": { check: boolean, fixed: true, help: "Use a group that is not empty" },
    "lvm.use_thinpool": { check: boolean, default: "true", fixed: true, help: "Thin volumes, or classic ones" },
    "lvm.thinpool_name": {
      check: (value) => groupPattern.test(value) ? undefined : `Invalid thin pool name "${value}"`,
      default: "LXDThinPool",
      fixed: true,
      help: "Name of the thin pool",
    },
    "lvm.thinpool_metadata_size": { check: size, default: "0", fixed: true, help: "Size of its metadata; 0 by itself" },
    "rsync.bwlimit": { check: anyText, default: "0", help: "Kept for LXD's sake; copies here do not use rsync" },
    "rsync.compression": { check: boolean, default: "true", help: "Kept for LXD's sake; copies here do not use rsync" },
  },
  volumeKeys: {
    "block.filesystem": {
      check: (value) => filesystems.test(value) ? undefined : `Invalid value "${value}": ext4, xfs, btrfs are allowed`,
      default: "ext4",
      fixed: true,
      help: "Filesystem of the volume",
    },
    "block.mount_options": { check: words, default: "discard", help: "Mount options of the volume" },
    "block.create_options": { check: words, fixed: true, help: "More options of mkfs" },
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
    const group = groupName(pool);
    await mkdir(pool.root, { recursive: true, mode: 0o711 });
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
    if (thinPool !== undefined && !(await tool.volumes(group))?.some(({ name }) => name === thinPool)) {
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
    return await this.open(host, pool);
  },

  async open(host, pool): Promise<Driver> {
    const { source } = pool.config;
    const isLoop = source === pool.diskFile;
    const tool = new LvmTool(host);
    const group = groupName(pool), thinPool = thinPoolName(pool);
    const device = isLoop ? await attachLoopFile(host, pool.diskFile) : source!;
    const volumes = await tool.volumes(group);
    if (!volumes) throw new LidoError("unavailable", `Volume group "${group}" doesn't exist`);
    if (thinPool !== undefined) {
      const found = volumes.find(({ name }) => name === thinPool);
      if (!found) {
        throw new LidoError("unavailable", `Thin pool "${thinPool}" of volume group "${group}" doesn't exist`);
      }
      // Its filling can only be asked for while it is active.
      if (!found.isActive) await tool.activate(group, thinPool);
    }
    await mkdir(pool.root, { recursive: true, mode: 0o711 });
    await makeDirectories(pool.root);
    // What a killed daemon left active. What somebody has open is a running container's.
    const idle = volumes.filter(({ name, isActive, isOpen }) =>
      isActive && !isOpen && (volumeOf(name) ?? parentOfTemporary(name))
    );
    await tool.deactivate(group, ...idle.map(({ name }) => name));
    const driver = new LvmDriver(host, pool, tool, {
      volumes,
      // ext4, xfs and btrfs can, from this version on. @see mount_setattr(2)
      idmappedMounts: atLeast(release(), 5, 15),
      ...(isLoop
        ? {
          resize: {
            check: (sizeBytes) => refuseShrink(pool.diskFile, sizeBytes),
            grow: async (sizeBytes) => {
              await growLoopFile(host, pool.diskFile, sizeBytes);
              await tool.resizePhysical(device);
              if (thinPool === undefined) return;
              await tool.extendAll(group, thinPool);
              const grown = (await tool.volumes(group))?.find(({ name }) => name === thinPool);
              if (grown) driver.sizes.set(thinPool, grown.sizeBytes);
            },
          },
        }
        : {}),
      onClose: async () => {
        await tool.deactivateGroup(group);
        if (isLoop) await detachLoopFile(host, pool.diskFile);
      },
    });
    await sweep(driver);
    return driver;
  },

  async destroy(host, pool) {
    const { source } = pool.config;
    const tool = new LvmTool(host);
    const group = groupName(pool);
    for (const { target } of (await host.mounts.list()).toReversed()) {
      if (target.startsWith(`${pool.root}/`)) await host.mounts.unmount(target);
    }
    if (source === pool.diskFile) {
      // Without the file there is nothing of the group to be found.
      if ((await host.loops.find(pool.diskFile)).length > 0 || await isThere(pool.diskFile)) {
        await attachLoopFile(host, pool.diskFile);
        await removeOurGroup(tool, group);
      }
      await removeLoopFile(host, pool.diskFile);
    } else if (isAbsolute(source!)) {
      if (await removeOurGroup(tool, group)) await tool.removePhysical(source!);
    } else {
      await leaveGroup(tool, group);
    }
    await rm(pool.root, { recursive: true, force: true });
  },
};

/** A group that is there: it must be empty, and nobody's, unless it is to be reused by force. */
async function planGroup(tool: LvmTool, pool: Pool, source: string): Promise<Record<string, string>> {
  const name = pool.config["lvm.vg_name"] || source;
  if (name !== source) {
    throw new LidoError("bad_request", `Invalid combination of "source" and "lvm.vg_name" property`);
  }
  const group = await tool.group(name);
  if (!group) throw new LidoError("bad_request", `The requested volume group "${name}" does not exist`);
  const volumes = await tool.volumes(name) ?? [];
  if (!isTrue(pool.config["lvm.vg.force_reuse"])) {
    const owner = foreignTags.find((one) => group.tags.includes(one));
    if (owner) {
      throw new LidoError("bad_request", `Volume group "${name}" is already used by a storage pool (tag ${owner})`);
    }
    const thinPool = thinPoolName(pool);
    const foreign = volumes.filter((one) => one.name !== thinPool);
    if (foreign.length > 0) {
      const named = foreign.slice(0, 3).map((one) => one.name).join(", ");
      throw new LidoError(
        "bad_request",
        `Volume group "${name}" is not empty: it has ${named}${
          foreign.length > 3 ? ", …" : ""
        }; see lvm.vg.force_reuse`,
      );
    }
  }
  return { ...pool.config, source, "lvm.vg_name": name };
}

/** Ours has the tag. @returns Whether it was there. */
async function removeOurGroup(tool: LvmTool, group: string): Promise<boolean> {
  const found = await tool.group(group);
  if (!found?.tags.includes(tag)) return false;
  await tool.removeGroup(group);
  return true;
}

/** Takes what is ours out of a group that is not. */
async function leaveGroup(tool: LvmTool, group: string): Promise<void> {
  const found = await tool.group(group);
  if (!found?.tags.includes(tag)) return;
  const volumes = await tool.volumes(group) ?? [];
  const ours = volumes.filter(({ name }) => volumeOf(name) ?? parentOfTemporary(name));
  const isSnapshot = (name: string) => volumeOf(name)?.snapshot !== undefined;
  ours.sort((a, b) => Number(isSnapshot(b.name)) - Number(isSnapshot(a.name)));
  await tool.remove(group, ...ours.map(({ name }) => name));
  await tool.remove(
    group,
    ...volumes.filter((one) => one.isThinPool && one.tags.includes(tag)).map(({ name }) => name),
  );
  await tool.untagGroup(group, tag);
}

/** What an earlier daemon was killed at. */
async function sweep(driver: LvmDriver): Promise<void> {
  for (const name of [...driver.sizes.keys()]) {
    const parent = parentOfTemporary(name);
    if (parent !== undefined) await driver.removeTemporary(name, parent);
  }
}

function refuseSmall(what: string, bytes: bigint): void {
  if (bytes >= smallestBytes) return;
  throw new LidoError(
    "bad_request",
    `Cannot use ${what}: it has ${bytes} bytes, at least ${smallestBytes} are needed (a volume has ${sizeDefault} by default)`,
  );
}

function isThere(path: string): Promise<boolean> {
  return lstat(path).then(() => true, () => false);
}

function atLeast(version: string, major: number, minor: number): boolean {
  const [a = 0, b = 0] = version.split(".").map(Number);
  return a > major || (a === major && b >= minor);
}
