/** The places of the conformance suite: each case has a filesystem on its own loop files. */
import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { Driver, DriverKind, Pool } from "../../drivers/storage/driver.ts";
import { createHost } from "../../drivers/host/real.ts";
import { driverKinds } from "../../drivers/storage/registry.ts";
import { loopDevice } from "../support/loop_device.ts";
import { succeed } from "../support/command.ts";

export interface Place {
  readonly name: string;
  readonly driver: string;
  /** The limit that the quota tests set on a volume; 32 when absent. */
  readonly limitMiB?: number;
  /** Prepares the pool's source; `undo` removes it. Absent: a loop file made by the driver, or none. @returns The pool's `source`. */
  readonly source?: (base: string, undo: AsyncDisposableStack) => Promise<string>;
  /** Whether to interrupt the driver at each of its points here; tests/crash does this to whole daemons. */
  readonly isCutOff?: true;
  /** Additional settings of the pool. */
  readonly config?: Readonly<Record<string, string>>;
  /** Filesystem to make on a loop file for the lido directory; absent: the temporary directory's. */
  readonly filesystem?: Filesystem;
}

export interface Filesystem {
  readonly format: readonly string[];
  readonly type: string;
  readonly options: readonly string[];
}

const ext4 = { format: ["mkfs.ext4", "-q", "-F"], type: "ext4", options: [] };
const xfs = { format: ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"], type: "xfs", options: [] };
const ext4Quota = {
  format: [...ext4.format, "-O", "quota,project", "-E", "quotatype=prjquota"],
  type: "ext4",
  options: ["prjquota"],
};
const xfsQuota = { ...xfs, options: ["prjquota"] };

/** Big enough for the filesystems with the largest minimum size. */
const blockDevice = (base: string, undo: AsyncDisposableStack) => loopDevice(base, "device", undo, 2048);

export const places: readonly Place[] = [
  { name: "dir on ext4", driver: "dir", filesystem: ext4 },
  { name: "dir on ext4 (project quota)", driver: "dir", filesystem: ext4Quota },
  { name: "dir on xfs (reflink)", driver: "dir", filesystem: xfs },
  { name: "dir on xfs (reflink, project quota)", driver: "dir", filesystem: xfsQuota },
  { name: "btrfs on a loop file", driver: "btrfs", isCutOff: true },
  { name: "zfs on a loop file", driver: "zfs", isCutOff: true, config: { "zfs.pool_name": zpool() } },
  {
    name: "zfs on a mirror of two block devices",
    driver: "zfs",
    config: { "zfs.pool_name": zpool() },
    source: async (base, undo) => `mirror=${await loopDevice(base, "a", undo)},${await loopDevice(base, "b", undo)}`,
  },
  {
    name: "zfs on a dataset of a pool that is there",
    driver: "zfs",
    source: async (base, undo) => {
      const name = zpool();
      await host.run(["zpool", "create", "-m", "none", name, await loopDevice(base, "a", undo)]);
      undo.defer(async () => void await host.run(["zpool", "destroy", "-f", name]));
      await host.run(["zfs", "create", `${name}/mine`]);
      return `${name}/lido`;
    },
  },
  {
    name: "zfs with copies of the whole (zfs.clone_copy=false)",
    driver: "zfs",
    config: { "zfs.pool_name": zpool(), "zfs.clone_copy": "false", "volume.zfs.use_refquota": "true" },
  },
  { name: "lvm thin, ext4, on a loop file", driver: "lvm", isCutOff: true, config: lvm("ext4", "64MiB") },
  { name: "lvm thin, xfs, on a block device", driver: "lvm", source: blockDevice, limitMiB: 304, config: lvm("xfs") },
  { name: "lvm thin, btrfs, on a loop file", driver: "lvm", limitMiB: 128, config: lvm("btrfs", "192MiB") },
  {
    name: "lvm classic, ext4, on a block device",
    driver: "lvm",
    isCutOff: true,
    source: blockDevice,
    config: { ...lvm("ext4", "64MiB"), "lvm.use_thinpool": "false" },
  },
];

/** @param volumeSize Size of volumes that are created without one. */
function lvm(filesystem: string, volumeSize = "320MiB"): Record<string, string> {
  // Names of volume groups are global, and the host may have its own.
  const group = `lido-test-${process.pid}`;
  return { "volume.block.filesystem": filesystem, "volume.size": volumeSize, "lvm.vg_name": group };
}

export const host = createHost();

/** A unique name: names of ZFS pools are global, and other tests may run at the same time. */
function zpool(): string {
  return `lido-${process.pid}-${Math.random().toString(36).slice(2, 8)}`;
}

/** Why this host cannot run the tests of a place; undefined if it can. */
export async function reasonAgainst({ driver, filesystem }: Place): Promise<string | undefined> {
  const kind = driverKinds.get(driver);
  if (!kind) return `there is no driver "${driver}"`;
  const found = await kind.probe(host);
  if ("missing" in found) return found.missing;
  if (!filesystem?.options.includes("prjquota")) return undefined;
  try {
    await using _mounted = await mounted(filesystem);
    return undefined;
  } catch {
    return `this kernel has no project quotas on ${filesystem.type}`;
  }
}

export interface Mounted extends AsyncDisposable {
  readonly base: string;
  /** Where it is mounted, in `base`. */
  readonly directory: string;
}

/** Mounts a new filesystem on a loop file. */
export async function mounted(filesystem: Filesystem): Promise<Mounted> {
  await using stack = new AsyncDisposableStack();
  const base = await mkdtemp(join(tmpdir(), "lido-conformance-"));
  stack.defer(() => rm(base, { recursive: true, force: true }));
  const directory = join(base, "lido");
  await mkdir(directory);
  const file = join(base, "filesystem.img");
  await writeFile(file, "");
  await truncate(file, 600 * 1024 * 1024);
  await succeed([...filesystem.format, file]);
  const device = await host.loops.attach(file);
  stack.defer(() => host.loops.detach(device));
  await host.mounts.mount(device, directory, filesystem.type, filesystem.options);
  stack.defer(() => host.mounts.unmount(directory));
  const all = stack.move();
  return { base, directory, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

async function plain(): Promise<Mounted> {
  const base = await mkdtemp(join(tmpdir(), "lido-conformance-"));
  await mkdir(join(base, "lido"));
  return {
    base,
    directory: join(base, "lido"),
    [Symbol.asyncDispose]: () => rm(base, { recursive: true, force: true }),
  };
}

export interface Opened {
  readonly directory: string;
  readonly kind: DriverKind;
  readonly pool: Pool;
  readonly driver: Driver;
  readonly limitMiB: number;
  reopen(): Promise<Driver>;
}

/** Makes a pool on `place`, runs `test` with it, and removes everything afterwards, also after a failure. */
export async function withPool(place: Place, test: (opened: Opened) => Promise<void>): Promise<void> {
  try {
    await inPool(place, test);
  } catch (error) {
    throw unfolded(error);
  }
}

/** After a failed test the cleanup often fails too: print both errors, because a SuppressedError's parts would not be printed. */
function unfolded(error: unknown): unknown {
  const all: unknown[] = [];
  for (; error instanceof SuppressedError; error = error.suppressed) all.unshift(error.error);
  return all.length === 0 ? error : new AggregateError([error, ...all], "The test failed, and so did clearing up");
}

async function inPool(place: Place, test: (opened: Opened) => Promise<void>): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const { base, directory } = stack.use(await (place.filesystem ? mounted(place.filesystem) : plain()));
  await mkdir(join(directory, "disks"));
  const kind = driverKinds.get(place.driver)!;
  const bare: Pool = {
    name: "p1",
    config: { ...await settings(place, base, stack), ...place.config },
    root: join(directory, "storage-pools/p1"),
    diskFile: join(directory, "disks/p1.img"),
  };
  const pool: Pool = { ...bare, config: await kind.plan(host, bare) };
  stack.defer(() => kind.destroy(host, pool));
  let driver = await kind.create(host, pool);
  await test({
    directory,
    kind,
    pool,
    limitMiB: place.limitMiB ?? 32,
    get driver() {
      return driver;
    },
    reopen: async () => driver = await kind.open(host, pool),
  });
}

async function settings(place: Place, base: string, undo: AsyncDisposableStack): Promise<Record<string, string>> {
  if (place.source) return { source: await place.source(base, undo) };
  return place.driver === "dir" ? {} : { size: "512MiB" };
}
