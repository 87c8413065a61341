import { lstat, mkdir, readdir, stat } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import { parseSizeBytes, showBytes, showUnequalBytes } from "../../../api/size.ts";
import type { Host, MountEntry } from "../../host/host.ts";
import { refuseFilled } from "../block_device.ts";
import type { Driver, DriverKind, Pool } from "../driver.ts";
import { anyText, boolean, isTrue, size, words } from "../keys.ts";
import { makeDirectories, needDirectories, recordsDirectory, repairModes } from "../layout.ts";
import {
  attachLoopFile,
  checkGrowth,
  defaultSize,
  detachLoopFile,
  growLoopFile,
  makeLoopFile,
  removeLoopFile,
} from "../loop_file.ts";
import { deletePoolRoot } from "../pool_root.ts";
import { checkSourceDirectory, refuseBusyDevice } from "../source.ts";
import { removeTree } from "../tree.ts";
import { BtrfsDriver, removeSubvolumes } from "./driver.ts";
import { BtrfsTool, isSubvolume } from "./tool.ts";

const smallestBytes = 114_294_784n; // least size for mkfs.btrfs

const smallestResizedBytes = 256n * 1024n * 1024n; // @see fs/btrfs/ioctl.c, btrfs_ioctl_resize

/** A btrfs filesystem: on a loop file of ours, on a block device, or an existing subvolume or directory of one. */
export const btrfsKind: DriverKind = {
  name: "btrfs",
  packages: ["btrfs-progs"],
  poolKeys: {
    "source": {
      check: anyText,
      fixed: true,
      help: "Block device, or path of an existing btrfs directory; default a loop file",
    },
    "source.wipe": { check: boolean, default: "false", fixed: true, help: "Whether the block device is wiped first" },
    "size": { check: size, help: "Size of the loop file; it can grow" },
    "btrfs.mount_options": {
      check: words,
      default: "user_subvol_rm_allowed",
      effect: "next open",
      help: "Mount options of the pool",
    },
    "btrfs.create_options": { check: words, fixed: true, help: "Additional options of mkfs.btrfs" },
  },
  volumeKeys: {},

  async probe(host) {
    if (!await host.which("btrfs") || !await host.which("mkfs.btrfs")) {
      return { missing: `"btrfs" is not installed (Debian package btrfs-progs)` };
    }
    return { version: await new BtrfsTool(host).version() };
  },

  async plan(host, pool) {
    const { source, size } = pool.config;
    if (!source || source === pool.diskFile) {
      const bytes = parseSizeBytes(size ?? await defaultSize(pool.diskFile));
      if (bytes! < smallestBytes) {
        throw new LidoError("bad_request", `Invalid size "${size}": at least ${showBytes(smallestBytes)} are needed`);
      }
      return { ...pool.config, source: pool.diskFile, size: size ?? await defaultSize(pool.diskFile) };
    }
    if (size) {
      throw new LidoError(
        "bad_request",
        `Cannot set "size" with source "${source}": only a loop file has a size of its own`,
      );
    }
    if (!isAbsolute(source)) throw new LidoError("bad_request", `Source path '${source}' isn't absolute`);
    const info = await stat(source).catch(() => undefined);
    if (!info) throw new LidoError("bad_request", `Source path '${source}' doesn't exist`);
    if (info.isBlockDevice()) {
      await refuseBusyDevice(source);
      return { ...pool.config };
    }
    const isLink = (await lstat(source)).isSymbolicLink();
    if (!info.isDirectory() && !isLink) {
      throw new LidoError("bad_request", `Source path '${source}' is neither a block device nor a directory`);
    }
    const clean = await checkSourceDirectory(pool, source);
    if (!await isOnBtrfs(host, clean)) {
      throw new LidoError("bad_request", "Provided path does not reside on a btrfs filesystem");
    }
    return { ...pool.config, source: clean };
  },

  async create(host, pool) {
    const tool = new BtrfsTool(host);
    const { source, size } = pool.config;
    await mkdir(pool.root, { recursive: true, mode: 0o700 });
    const formatting = (pool.config["btrfs.create_options"] ?? "").split(" ").filter(Boolean);
    if (source === pool.diskFile) {
      await makeLoopFile(pool.diskFile, size!);
      const device = await attachLoopFile(host, pool.diskFile);
      await tool.format(device, pool.name, { force: true, words: formatting });
    } else if ((await stat(source!)).isBlockDevice()) {
      if (!isTrue(pool.config["source.wipe"])) await refuseFilled(host, source!);
      await tool.format(source!, pool.name, { force: isTrue(pool.config["source.wipe"]), words: formatting });
    }
    if (source !== pool.root) await mountSource(host, pool);
    await makeDirectories(pool.root);
    return await this.open(host, pool);
  },

  async open(host, pool): Promise<Driver> {
    const { source } = pool.config;
    const isLoop = source === pool.diskFile;
    await mkdir(pool.root, { recursive: true, mode: 0o700 });
    const mounted = await host.mounts.at(pool.root);
    if (mounted) await needOwnMount(host, pool, mounted);
    else await mountSource(host, pool);
    // The mount may be an earlier version's, or a bind mount, which has its source's options.
    if (source !== pool.root) await host.mounts.forbidDevices(pool.root);
    await needDirectories(pool.root);
    await repairModes(pool.root);
    const tool = new BtrfsTool(host);
    const driver = new BtrfsDriver(host, pool, tool, {
      idmappedMounts: await host.mounts.canIdmap(pool.root),
      ...(isLoop
        ? {
          resize: {
            check: async (sizeBytes) => {
              await checkGrowth(pool.diskFile, sizeBytes);
              if (sizeBytes >= smallestResizedBytes) return;
              const [to, least] = showUnequalBytes(sizeBytes, smallestResizedBytes);
              throw new LidoError(
                "bad_request",
                `Cannot grow the pool to ${to}: btrfs can be resized to ${least} and more`,
              );
            },
            grow: async (sizeBytes) => {
              await growLoopFile(host, pool.diskFile, sizeBytes);
              await tool.growToDevice(pool.root);
            },
          },
        }
        : {}),
      onClose: () => isLoop ? detachLoopFile(host, pool.diskFile) : Promise.resolve(),
    });
    await driver.sweep();
    return driver;
  },

  async destroy(host, pool) {
    const { source } = pool.config;
    const isDirectory = source !== undefined && source !== pool.diskFile &&
      await stat(source).then((info) => info.isDirectory(), () => false);
    if (isDirectory && (await host.mounts.at(pool.root) || source === pool.root)) await removeVolumes(host, pool);
    await host.mounts.unmount(pool.root);
    if (source === pool.diskFile) await removeLoopFile(host, pool.diskFile);
    if (isDirectory && source === pool.root) return;
    await deletePoolRoot(pool.root);
  },
};

async function mountSource(host: Host, pool: Pool): Promise<void> {
  const { source } = pool.config;
  const options = ["nodev", ...(pool.config["btrfs.mount_options"] || "user_subvol_rm_allowed").split(",")];
  if (source === pool.diskFile) {
    const device = await attachLoopFile(host, pool.diskFile);
    try {
      return await host.mounts.mount(device, pool.root, "btrfs", options);
    } catch (error) {
      await host.loops.detach(device);
      throw error;
    }
  }
  const info = await stat(source!).catch(() => undefined);
  if (!info) throw new LidoError("unavailable", `Source path '${source}' doesn't exist`);
  if (info.isBlockDevice()) await host.mounts.mount(source!, pool.root, "btrfs", options);
  else if (source !== pool.root) await host.mounts.bind(source!, pool.root);
}

/** An existing mount may be older than the daemon, or foreign. @throws {LidoError} unavailable when it is not the pool's source. */
async function needOwnMount(host: Host, pool: Pool, mounted: MountEntry): Promise<void> {
  const { source } = pool.config;
  if (source === pool.diskFile) {
    if ((await host.loops.find(source, { isCurrent: true })).includes(mounted.source)) return;
  } else {
    const [there, ours] = await Promise.all([stat(pool.root), stat(source!).catch(() => undefined)]);
    if (!ours) throw new LidoError("unavailable", `Source path '${source}' doesn't exist`);
    if (ours.isBlockDevice() ? mounted.type === "btrfs" : there.dev === ours.dev && there.ino === ours.ino) return;
  }
  throw new LidoError("unavailable", `Something else than '${source}' is mounted at "${pool.root}"`);
}

async function isOnBtrfs(host: Host, path: string): Promise<boolean> {
  const { stdout } = await host.run(["stat", "-f", "-c", "%T", "--", path]);
  return stdout.trim() === "btrfs";
}

/** Deletes our directories from a foreign filesystem; everything else stays. */
async function removeVolumes(host: Host, pool: Pool): Promise<void> {
  const tool = new BtrfsTool(host);
  for (const directory of ["containers", "custom", "images", "containers-snapshots", "custom-snapshots"]) {
    const path = join(pool.root, directory);
    for (const entry of await readdir(path).catch(() => [])) {
      const one = join(path, entry);
      if (await isSubvolume(one)) await tool.delete(one);
      else await removeSubvolumes(host, tool, one);
    }
    await removeTree(host, path);
  }
  await removeTree(host, join(pool.root, recordsDirectory));
}
