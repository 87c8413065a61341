import { stat } from "node:fs/promises";
import { LidoError } from "../../../api/errors.ts";
import { formatSize, parseSizeBytes, showBytes } from "../../../api/size.ts";
import type { Host } from "../../host/host.ts";
import { deviceBytes, refuseFilled } from "../block_device.ts";
import type { DriverKind, Pool } from "../driver.ts";
import { anyText, boolean, isTrue, size, words } from "../keys.ts";
import { defaultSize } from "../loop_file.ts";
import { names } from "./layout.ts";
import { probe } from "./module.ts";
import { notEmpty, ownerOf } from "./owner.ts";
import { createPool, destroyPool, openPool } from "./pool.ts";
import { checkDatasetName, checkPoolName, sourceOf } from "./source.ts";
import { ZfsTool } from "./tool.ts";

const smallestBytes = 64n * 1024n * 1024n; // SPA_MINDEVSIZE

/** A ZFS pool: on a loop file of ours, on block devices, or an existing pool or dataset. */
export const zfsKind: DriverKind = {
  name: "zfs",
  packages: ["zfsutils-linux", "zfs-dkms"],
  poolKeys: {
    "source": {
      check: anyText,
      fixed: true,
      help:
        "Block devices (/dev/a, /dev/a,/dev/b, mirror=/dev/a,/dev/b; stripe, raidz1, raidz2, raidz3), or an existing pool or dataset; default a loop file",
    },
    "source.wipe": { check: boolean, default: "false", fixed: true, help: "Whether the block devices are wiped first" },
    "size": { check: size, help: "Size of the loop file; it can grow" },
    "zfs.pool_name": { check: anyText, fixed: true, help: "Name of the ZFS pool or dataset; default the pool's own" },
    "zfs.clone_copy": {
      check: (value) => value === "rebase" ? undefined : boolean(value),
      values: ["true", "false", "rebase"],
      default: "true",
      help:
        "Copies share blocks with their source (true), with the image both come from (rebase), or with none (false)",
    },
    "zfs.export": {
      check: boolean,
      default: "true",
      help: "Whether the ZFS pool is exported when the storage pool is closed",
    },
    "zfs.create_options": { check: words, fixed: true, help: "Additional options of zpool create" },
  },
  volumeKeys: {
    "zfs.blocksize": { check: blocksize, help: "Size of the blocks of new files: a power of two from 512 to 16MiB" },
    "zfs.remove_snapshots": {
      check: boolean,
      default: "false",
      help: "Whether a restore may delete the snapshots made later",
    },
    "zfs.use_refquota": { check: boolean, default: "false", help: "Whether snapshots do not count towards the size" },
    "zfs.reserve_space": { check: boolean, default: "false", help: "Whether the volume's size is reserved for it" },
  },

  probe,

  async plan(host, pool) {
    const tool = new ZfsTool(host);
    const source = sourceOf(pool);
    const { size, "zfs.pool_name": given } = pool.config;
    if (source.is === "existing") return { ...pool.config, ...await planExisting(tool, pool, source.dataset) };
    const name = given || pool.name;
    if (name.includes("/")) {
      throw new LidoError("bad_request", "zfs.pool_name can't point to a dataset when source isn't set");
    }
    checkPoolName(name);
    if ((await tool.pools()).includes(name)) {
      throw new LidoError(
        "bad_request",
        `Cannot create ZFS pool "${name}": pool already exists; source=${name} uses it, zfs.pool_name gives the new one another name`,
      );
    }
    if (source.is === "file") {
      const bytes = size ?? await defaultSize(pool.diskFile);
      if (parseSizeBytes(bytes)! < smallestBytes) {
        throw new LidoError("bad_request", `Invalid size "${bytes}": at least ${showBytes(smallestBytes)} are needed`);
      }
      return { ...pool.config, source: pool.diskFile, size: bytes, "zfs.pool_name": name };
    }
    refuseSize(pool);
    for (const device of source.devices) await checkDevice(host, device, isTrue(pool.config["source.wipe"]));
    return { ...pool.config, "zfs.pool_name": name };
  },

  create: (host, pool) => createPool(host, pool),
  open: openPool,
  isInUse: async (host, pool) => await new ZfsTool(host).exists(names.zpool(names.top(pool))),
  destroy: (host, pool) => destroyPool(host, pool),
};

/** @throws {LidoError} bad_request when the pool or dataset is not empty, or belongs to another storage pool. */
async function planExisting(tool: ZfsTool, pool: Pool, dataset: string): Promise<Record<string, string>> {
  const given = pool.config["zfs.pool_name"];
  if (given && given !== dataset) {
    throw new LidoError("bad_request", "The source must match zfs.pool_name if specified");
  }
  refuseSize(pool);
  checkDatasetName(dataset);
  const found = await tool.names(dataset);
  // The property is inherited, so a dataset within another storage pool is refused too.
  const { root } = await ownerOf(tool, pool, found.length > 0 ? dataset : names.zpool(dataset));
  if (root !== undefined) {
    throw new LidoError("bad_request", `ZFS dataset "${dataset}" is in use by the storage pool at "${root}"`);
  }
  if (found.length > 1) throw notEmpty(dataset);
  return { source: dataset, "zfs.pool_name": dataset };
}

function refuseSize({ config }: Pool): void {
  if (!config.size) return;
  throw new LidoError(
    "bad_request",
    `Cannot set "size" with source "${config.source}": only a loop file has a size of its own`,
  );
}

async function checkDevice(host: Host, device: string, mayWipe: boolean): Promise<void> {
  if (await stat(device).then((info) => info.isFile(), () => false)) {
    throw new LidoError("bad_request", `Source path '${device}': Custom loop file locations are not supported`);
  }
  const bytes = await deviceBytes(device);
  if (bytes < smallestBytes) {
    throw new LidoError(
      "bad_request",
      `Source "${device}" is too small: it has ${formatSize(bytes)}, ZFS needs ${formatSize(smallestBytes)}`,
    );
  }
  if (!mayWipe) await refuseFilled(host, device);
}

/** LXD's text. */
function blocksize(value: string): string | undefined {
  const bytes = parseSizeBytes(value);
  const isRight = bytes !== undefined && bytes >= 512n && bytes <= 16n * 1024n * 1024n && (bytes & (bytes - 1n)) === 0n;
  return isRight ? undefined : "Value should be between 512B and 16MiB, and be power of 2";
}
