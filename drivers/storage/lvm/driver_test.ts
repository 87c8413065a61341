import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { CommandError, type Host } from "../../host/host.ts";
import type { Volume } from "../driver.ts";
import { LvmDriver } from "./driver.ts";
import { LvmGroup } from "./group.ts";
import { detect, refuseTooSmall } from "./filesystem.ts";
import { parseMergeLeft } from "./merge_progress.ts";
import { healthOf, parseThinStatus, percentOf, refuseFull } from "./thin_status.ts";
import { type LogicalVolume, LvmTool } from "./tool.ts";

const volume: Volume = { type: "custom", name: "default_v" };

interface Fake extends AsyncDisposable {
  readonly driver: LvmDriver;
  readonly group: LvmGroup;
  /** Command lines of the started processes, and mounts. */
  readonly seen: string[];
  /** By mount point, with the mount options. */
  readonly mounted: Map<
    string,
    { readonly source: string; readonly type: string; readonly options: readonly string[] }
  >;
  /** Commands that match fail with this text from now on. */
  fail: readonly [pattern: RegExp, stderr: string] | undefined;
}

async function fake(
  options: { there?: string[]; fail?: Fake["fail"]; config?: Record<string, string> } = {},
): Promise<Fake> {
  const root = await mkdtemp(join(tmpdir(), "lido-lvm-"));
  const seen: string[] = [];
  const mounted: Fake["mounted"] = new Map();
  const host = {
    run: (argv: readonly string[]) => {
      const line = argv.join(" ");
      seen.push(line);
      if (world.fail?.[0].test(line)) return Promise.reject(new CommandError(argv, 5, world.fail[1]));
      return Promise.resolve({ code: 0, stdout: '{"report": [{"lv": []}]}', stderr: "" });
    },
    mounts: {
      mount: (source: string, target: string, type: string, options: readonly string[] = []) =>
        Promise.resolve(void mounted.set(target, { source, type, options })),
      unmount: (target: string) => Promise.resolve(void mounted.delete(target)),
      at: (target: string) => Promise.resolve(mounted.get(target)),
      list: () => Promise.resolve([...mounted].map(([target, mount]) => ({ target, ...mount }))),
    },
    confined: () => host,
  } as unknown as Host;
  const volumes = (options.there ?? []).map((name): LogicalVolume => ({
    name,
    sizeBytes: 64n * 1024n * 1024n,
    origin: undefined,
    isActive: false,
    isOpen: false,
    isThinPool: false,
    thinPool: undefined,
    isMerging: false,
    tags: [],
  }));
  const pool = { name: "lido-test-none", config: options.config ?? {}, root, diskFile: "" };
  const group = new LvmGroup(host, pool, new LvmTool(host), { volumes, extentBytes: 4n * 1024n * 1024n });
  const driver = new LvmDriver(group, {
    idmappedMounts: true,
    onClose: () => Promise.resolve(),
  });
  const world: Fake = {
    driver,
    group,
    seen,
    mounted,
    fail: options.fail,
    [Symbol.asyncDispose]: () => rm(root, { recursive: true }),
  };
  return world;
}

const tools = (seen: readonly string[]) => seen.map((line) => line.split(" ")[0]);

Deno.test("lvm thin: a volume is made by three processes, its mkfs included", async () => {
  await using world = await fake();
  assert.equal(await world.driver.exists(volume), false);
  await world.driver.create(volume, { sizeBytes: 10_000_000n, uid: 0 });
  assert.deepEqual(world.seen, [
    "lvcreate --yes --setactivationskip y --ignoreactivationskip --name custom_default_v --wipesignatures n --thin " +
    "--virtualsize 12582912b lido-test-none/LXDThinPool",
    "mkfs.ext4 -q -F -E nodiscard,assume_storage_prezeroed=1 /dev/lido-test-none/custom_default_v",
    "lvchange --yes -an lido-test-none/custom_default_v",
  ]);
  assert.equal(await world.driver.exists(volume), true);
  assert.equal(await world.driver.facets.quota!.get(volume), 12582912n);
});

Deno.test("lvm thin: a snapshot, a copy and a delete are one process each", async () => {
  await using world = await fake();
  await world.driver.create(volume);
  world.seen.length = 0;
  await world.driver.facets.snapshot!.create({ ...volume, snapshot: "s0" });
  assert.deepEqual(tools(world.seen.splice(0)), ["lvcreate"]);
  await world.driver.facets.clone!.clone(volume, { ...volume, name: "default_w" });
  assert.deepEqual(tools(world.seen.splice(0)), ["lvcreate"]);
  await world.driver.facets.snapshot!.rename({ ...volume, snapshot: "s0" }, "s1");
  assert.deepEqual(tools(world.seen.splice(0)), ["lvchange", "lvrename"]);
});

Deno.test("lvm thin: an xfs copy gets a UUID of its own", async () => {
  await using world = await fake({ config: { "volume.block.filesystem": "xfs" } });
  await world.driver.create(volume);
  world.seen.length = 0;
  await world.driver.facets.clone!.clone(volume, { ...volume, name: "default_w" });
  assert.deepEqual(tools(world.seen), ["lvcreate", "xfs_admin", "lvchange"]);
});

Deno.test("lvm classic: stripes, no thin pool, a snapshot with room for all of its origin", async () => {
  const settings = { "lvm.stripes": "2", "lvm.stripes.size": "64KiB" };
  await using world = await fake({ config: { "lvm.use_thinpool": "false" } });
  await world.driver.create({ ...volume, config: settings }, { sizeBytes: 8388608n });
  assert.equal(
    world.seen.splice(0)[0],
    "lvcreate --yes --setactivationskip y --ignoreactivationskip --name custom_default_v --wipesignatures y " +
      "--size 8388608b --stripes 2 --stripesize 65536b lido-test-none",
  );
  await world.driver.facets.snapshot!.create({ ...volume, snapshot: "s0" });
  assert.equal(
    world.seen[0],
    "lvcreate --yes --setactivationskip y --permission r --ignoreactivationskip --extents 100%ORIGIN --snapshot " +
      "--name custom_default_v-s0 lido-test-none/custom_default_v",
  );
  assert.match(world.driver.absent.clone!, /share no blocks/);
});

Deno.test("lvm: a volume that somebody else made is in the way, and is not deleted by the undoing", async () => {
  await using world = await fake({
    fail: [/^lvcreate/, '  Logical Volume "custom_default_v" already exists in volume group "lido-test-none"'],
  });
  await assert.rejects(
    world.driver.create(volume),
    /Cannot make logical volume ".*\/custom_default_v": something of that name is on disk already/,
  );
  const removals = () => world.seen.filter((line) => line.startsWith("lvremove"));
  await world.driver.delete(volume);
  assert.deepEqual(removals(), []);
  // After the foreign volume is deleted, the name is free.
  world.fail = undefined;
  await world.driver.create(volume);
  await world.driver.delete(volume);
  assert.deepEqual(removals(), ["lvremove --yes --force lido-test-none/custom_default_v"]);
});

Deno.test("lvm: a mounted btrfs is written out and left active by its snapshot, by a daemon that has just started too", async () => {
  await using world = await fake({ there: ["custom_default_v"], config: { "lvm.use_thinpool": "false" } });
  world.mounted.set(world.driver.path(volume), { source: "", type: "btrfs", options: [] });
  await world.driver.facets.snapshot!.create({ ...volume, snapshot: "s0" });
  assert.deepEqual(tools(world.seen), ["sync", "lvcreate", "btrfstune", "lvchange"]);
  assert.match(world.seen.at(-1)!, /--permission r/);
});

Deno.test("lvm: a volume in use does not shrink, and is as before", async () => {
  await using world = await fake({ there: ["custom_default_v"] });
  const { driver, group } = world;
  world.mounted.set(driver.path(volume), { source: "", type: "ext4", options: [] });
  const device = `${driver.path(volume)}.device`;
  group.device = () => device;
  const head = new Uint8Array(0x10048);
  head.set([0x53, 0xef], 1080);
  await mkdir(dirname(device), { recursive: true });
  await writeFile(device, head);
  await assert.rejects(driver.facets.quota!.set(volume, 4194304n), /Cannot shrink custom volume "v": In use/);
  assert.deepEqual(world.seen, []);
  assert.equal(await driver.facets.quota!.get(volume), 67108864n);
});

Deno.test("lvm: a volume is mounted with its own options, else the pool's; sizes follow the pool's settings", async () => {
  await using world = await fake({ config: { "volume.block.mount_options": "noatime" } });
  const { driver, group, mounted } = world;
  const device = join(driver.pool.root, "device");
  group.device = () => device;
  const head = new Uint8Array(0x10048);
  head.set([0x53, 0xef], 1080);
  await writeFile(device, head);
  await driver.mount(volume);
  assert.deepEqual(mounted.get(driver.path(volume)), { source: device, type: "ext4", options: ["nodev", "noatime"] });
  const own: Volume = { ...volume, name: "default_own", config: { "block.mount_options": "nodiratime,sync" } };
  await driver.mount(own);
  assert.deepEqual(mounted.get(driver.path(own))!.options, ["nodev", "nodiratime", "sync"]);
  driver.configure({ "volume.size": "64MiB" });
  await driver.create({ ...volume, name: "default_new" });
  assert.equal(await driver.facets.quota!.get({ ...volume, name: "default_new" }), 67108864n);
  const plain: Volume = { ...volume, name: "default_plain" };
  await driver.mount(plain);
  assert.deepEqual(mounted.get(driver.path(plain))!.options, ["nodev", "discard"]);
});

Deno.test("lvm: delete takes snapshots and what a restore left, in one process", async () => {
  await using world = await fake({
    there: ["custom_default_v", "custom_default_v-s0", "old_custom_default_v", "custom_default_other"],
  });
  await world.driver.delete(volume);
  assert.deepEqual(world.seen, [
    "lvremove --yes --force lido-test-none/custom_default_v-s0 lido-test-none/old_custom_default_v " +
    "lido-test-none/custom_default_v",
  ]);
  assert.deepEqual(world.group.names(), ["custom_default_other"]);
});

Deno.test("lvm: what is mounted elsewhere, a snapshot too, is not deleted, and nothing with it", async () => {
  await using world = await fake({ there: ["custom_default_v", "custom_default_v-s0"] });
  world.mounted.set("/mnt/s", {
    source: "/dev/mapper/lido--test--none-custom_default_v--s0",
    type: "ext4",
    options: [],
  });
  await assert.rejects(
    world.driver.delete(volume),
    /^LidoError: Cannot delete custom volume "v": it is mounted at "\/mnt\/s"$/,
  );
  assert.deepEqual(world.seen, []);
  world.mounted.clear();
  await world.driver.delete(volume);
  assert.deepEqual(tools(world.seen), ["lvremove"]);
});

Deno.test("lvm: which filesystem a device has", () => {
  const head = new Uint8Array(0x10048);
  assert.equal(detect(head), undefined);
  head.set([0x53, 0xef], 1080);
  assert.equal(detect(head), "ext4");
  assert.equal(detect(new TextEncoder().encode("XFSB")), "xfs");
  const btrfs = new Uint8Array(0x10048);
  btrfs.set(new TextEncoder().encode("_BHRfS_M"), 0x10040);
  assert.equal(detect(btrfs), "btrfs");
  assert.equal(detect(new Uint8Array(3)), undefined);
});

Deno.test("lvm: the filling of a thin pool, from the kernel's status", () => {
  const status = parseThinStatus("1 115/1024 64046/65344 - rw discard_passdown queue_if_no_space - 1024");
  assert.deepEqual([percentOf(status.data), percentOf(status.metadata), status.mode], [98n, 11n, "rw"]);
  assert.throws(
    () => refuseFull("p1", "LXDThinPool", status),
    /"p1" has no room for more: 98 % of the data of thin pool "LXDThinPool" is used/,
  );
  assert.deepEqual(healthOf(status), { ok: false, text: "98 % of data, 11 % of metadata used" });
  const fresh = parseThinStatus("0 10/1024 0/65344 - rw no_discard_passdown error_if_no_space - 1024");
  refuseFull("p1", "LXDThinPool", fresh);
  assert.equal(healthOf(fresh).ok, true);
  assert.deepEqual(healthOf(parseThinStatus("Fail")), { ok: false, text: "the thin pool is in state Fail" });
  const full = parseThinStatus("0 10/1024 65344/65344 - out_of_data_space discard_passdown error_if_no_space - 1024");
  assert.match(healthOf(full).text, /out_of_data_space/);
  for (const nonsense of ["", "x", "1 2/3", "1 a/b c/d - rw"]) {
    assert.throws(() => parseThinStatus(nonsense), /Cannot read the status/, nonsense);
  }
});

Deno.test("lvm: how much of a merge is left, from the kernel's status", () => {
  assert.equal(parseMergeLeft("1040/204800 16"), 524288n);
  assert.equal(parseMergeLeft("16/204800 16"), 0n);
  for (const nonsense of ["Invalid", "Merge failed", "", "1/2", "a/b c"]) {
    assert.equal(parseMergeLeft(nonsense), undefined);
  }
});

Deno.test("lvm: a btrfs is not resized to less than the kernel makes of one; it says so first", () => {
  const MiB = 1024n * 1024n;
  assert.throws(
    () => refuseTooSmall("custom volume v", "btrfs", 252n * MiB),
    { message: "Cannot resize custom volume v to 252.00MiB: btrfs can be resized to 256.00MiB at least" },
  );
  refuseTooSmall("custom volume v", "btrfs", 256n * MiB);
  refuseTooSmall("custom volume v", "ext4", 4n * MiB);
});
