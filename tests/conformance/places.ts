/** Where the suite runs: one filesystem for each case, on loop files of its own. */
import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { Driver, DriverKind, Pool } from "../../drivers/storage/driver.ts";
import { createHost } from "../../drivers/host/real.ts";
import { driverKinds } from "../../drivers/storage/registry.ts";

export interface Place {
  readonly name: string;
  readonly driver: string;
  /** Settings of the pool. */
  readonly config?: Readonly<Record<string, string>>;
  /** A block device of its own below the pool, instead of a loop file of the pool's. */
  readonly isOnDevice?: boolean;
  /** A limit that a volume can have here; the default is 32. */
  readonly limitMiB?: number;
  /** Filesystem made on a loop file for the lido directory; absent: the one that the temporary directory is on. */
  readonly filesystem?: {
    readonly format: readonly string[];
    readonly type: string;
    readonly options: readonly string[];
  };
}

export const places: readonly Place[] = [
  { name: "dir on ext4", driver: "dir", filesystem: { format: ["mkfs.ext4", "-q", "-F"], type: "ext4", options: [] } },
  {
    name: "dir on xfs (reflink)",
    driver: "dir",
    filesystem: { format: ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"], type: "xfs", options: [] },
  },
  { name: "btrfs on a loop file", driver: "btrfs" },
  { name: "lvm thin, ext4, on a loop file", driver: "lvm", config: lvm("ext4", "64MiB") },
  { name: "lvm thin, xfs, on a block device", driver: "lvm", isOnDevice: true, limitMiB: 304, config: lvm("xfs") },
  { name: "lvm thin, btrfs, on a loop file", driver: "lvm", limitMiB: 128, config: lvm("btrfs", "192MiB") },
  {
    name: "lvm classic, ext4, on a block device",
    driver: "lvm",
    isOnDevice: true,
    config: { ...lvm("ext4", "64MiB"), "lvm.use_thinpool": "false" },
  },
];

/** @param volumeSize Of volumes for which no size is asked. */
function lvm(filesystem: string, volumeSize = "320MiB"): Record<string, string> {
  // The host may have groups of its own.
  const group = `lido-test-${process.pid}`;
  return { "volume.block.filesystem": filesystem, "volume.size": volumeSize, "lvm.vg_name": group };
}

export const host = createHost();

/** Why this host cannot have the place; undefined when it can. */
export async function reasonAgainst({ driver }: Place): Promise<string | undefined> {
  const kind = driverKinds.get(driver);
  if (!kind) return `there is no driver "${driver}"`;
  const found = await kind.probe(host);
  return "missing" in found ? found.missing : undefined;
}

export interface Opened {
  readonly directory: string;
  readonly kind: DriverKind;
  readonly pool: Pool;
  readonly driver: Driver;
  readonly limitMiB: number;
  reopen(): Promise<Driver>;
}

/** Makes a pool on `place`, hands it to `test`, and takes everything away again, whatever came of it. */
export async function withPool(place: Place, test: (opened: Opened) => Promise<void>): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const base = await mkdtemp(join(tmpdir(), "lido-conformance-"));
  stack.defer(() => rm(base, { recursive: true, force: true }));
  const directory = join(base, "lido");
  await mkdir(directory);
  if (place.filesystem) {
    const file = join(base, "filesystem.img");
    await writeFile(file, "");
    await truncate(file, 600 * 1024 * 1024);
    await host.run([...place.filesystem.format, file]);
    const device = await host.loops.attach(file);
    stack.defer(() => host.loops.detach(device));
    await host.mounts.mount(device, directory, place.filesystem.type, place.filesystem.options);
    stack.defer(() => host.mounts.unmount(directory));
  }
  await mkdir(join(directory, "disks"));
  const kind = driverKinds.get(place.driver)!;
  const bare: Pool = {
    name: "p1",
    config: {
      ...(place.driver === "dir"
        ? {}
        : place.isOnDevice
        ? { source: await blockDevice(base, stack) }
        : { size: "512MiB" }),
      ...place.config,
    },
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

/** A block device that lasts as long as `stack`. */
async function blockDevice(directory: string, stack: AsyncDisposableStack): Promise<string> {
  const file = join(directory, "device.img");
  await writeFile(file, "");
  await truncate(file, 2 * 1024 ** 3);
  const device = await host.loops.attach(file);
  stack.defer(() => host.loops.detach(device));
  return device;
}
