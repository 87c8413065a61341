/** Behaviour of single drivers' quotas: btrfs deletes the quota groups of deleted subvolumes, and project ids on ext4 and xfs are also set on
 * existing trees. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Driver, Pool, Volume } from "../../drivers/storage/driver.ts";
import { driverKinds } from "../../drivers/storage/registry.ts";
import { fileCount } from "../../server/instances/disks/file_count.ts";
import { host, mounted, places, reasonAgainst, withPool } from "./places.ts";

const volume: Volume = { type: "custom", name: "default_v1" };
const other: Volume = { type: "custom", name: "default_v2" };
const s0: Volume = { ...volume, snapshot: "s0" };
const MiB = 1024n * 1024n;
const tool = (...argv: [string, ...string[]]): string => execFileSync(argv[0], argv.slice(1)).toString();

/** Waits until quota groups and subvolumes match: the kernel deletes groups late. */
async function agree(root: string): Promise<void> {
  const groups = () =>
    [...tool("btrfs", "qgroup", "show", "--raw", "--sync", root).matchAll(/^0\/(\d+)/gm)].map(([, id]) => id!).sort();
  const deadline = Date.now() + 60_000;
  while (Date.now() < deadline) {
    // A sync wakes the kernel's cleaner thread.
    tool("btrfs", "filesystem", "sync", root);
    if (JSON.stringify(groups()) === JSON.stringify(subvolumes(root))) return;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  assert.deepEqual(groups(), subvolumes(root));
}

function subvolumes(root: string): string[] {
  return [...tool("btrfs", "subvolume", "list", root).matchAll(/^ID (\d+)/gm)].map(([, id]) => id!).concat("5").sort();
}

Deno.test("btrfs: quota groups go with their subvolumes, at once or at the next opening", async () => {
  await withPool(places.find(({ driver }) => driver === "btrfs")!, async ({ driver, pool, reopen }) => {
    // As when a volume is deleted while it is read. If one call threw synchronously, nobody would handle the other's rejected promise.
    const { get, usedBytes } = driver.facets.quota!;
    await assert.rejects(Promise.all([usedBytes(volume), get(volume)]), /No such file|ENOENT|not found/);
    await driver.create(volume, { sizeBytes: 32n * MiB });
    tool("btrfs", "subvolume", "create", join(driver.path(volume), "nested"));
    await driver.facets.snapshot!.create(s0);
    await driver.facets.clone!.clone(s0, other, { sizeBytes: 16n * MiB });
    await driver.facets.snapshot!.restore(s0);
    await driver.facets.snapshot!.afterRestore(volume);
    await agree(pool.root);
    await driver.facets.snapshot!.delete(s0);
    await driver.delete(other);
    await agree(pool.root);
    await driver.delete(volume);
    await agree(pool.root);
    // Newer kernels refuse to create a group without its subvolume: ignore the error.
    spawnSync("btrfs", ["qgroup", "create", "0/7777", pool.root], { stdio: "ignore" });
    tool("btrfs", "qgroup", "create", "1/100", pool.root);
    await driver.close();
    await reopen();
    await agree(pool.root);
    assert.match(tool("btrfs", "qgroup", "show", pool.root), /^1\/100\s/m, "people's own groups are not touched");
  });
});

Deno.test("btrfs: volumes that are deleted at once do not wait for the kernel's next commit", async () => {
  await withPool(places.find(({ driver }) => driver === "btrfs")!, async ({ driver, pool }) => {
    for (let round = 0; round < 5; round++) {
      for (const one of [volume, other]) await driver.create(one);
      tool("btrfs", "filesystem", "sync", pool.root);
      const started = performance.now();
      await Promise.all([volume, other].map((one) => driver.delete(one)));
      // The kernel by itself commits only after 30 s.
      assert.ok(performance.now() - started < 5_000, `round ${round} took ${performance.now() - started} ms`);
    }
  });
});

Deno.test("without project quotas a limit is refused, with the reason", async () => {
  const tmp = mkdtempSync(join(tmpdir(), "lido-quota-"));
  try {
    tool("mount", "-t", "tmpfs", "none", tmp);
    const probed = await host.quotas.probe(tmp);
    assert.match("absent" in probed ? probed.absent : "", /\(tmpfs\) has no project quotas: ext4 and xfs have/);
  } finally {
    tool("umount", tmp);
    rmSync(tmp, { recursive: true });
  }
  const reasons: Record<string, RegExp> = {
    "dir on ext4": /made without the features "project" and "quota" \(tune2fs/,
    "dir on xfs (reflink)": /not mounted with the option prjquota|kernel was built without quotas/,
  };
  for (const place of places.filter(({ name }) => reasons[name])) {
    await withPool(place, async ({ driver }) => {
      assert.equal(driver.facets.quota, undefined);
      assert.match(driver.absent.quota ?? "", reasons[place.name]!);
      await assert.rejects(driver.create(volume, { sizeBytes: 32n * MiB }), reasons[place.name]!);
    });
  }
});

/** Opens a pool in a directory of an existing filesystem. */
async function open(directory: string, name: string): Promise<{ driver: Driver; pool: Pool }> {
  const bare = { name, config: {}, root: join(directory, "storage-pools", name), diskFile: join(directory, "none") };
  const kind = driverKinds.get("dir")!;
  const pool = { ...bare, config: await kind.plan(host, bare) };
  return { driver: await kind.create(host, pool), pool };
}

async function used(driver: Driver, one: Volume): Promise<bigint> {
  return await driver.facets.quota!.usedBytes(one);
}

/** The kernel's list of project ids that have a limit or a file, as in `repquota -P`. */
function records(directory: string): string[] {
  const device = tool("findmnt", "-no", "SOURCE", directory).trim();
  const isXfs = tool("findmnt", "-no", "FSTYPE", directory).trim() === "xfs";
  const text = isXfs
    ? tool("xfs_quota", "-x", "-c", "report -p -n -N -b", directory)
    : tool("repquota", "-P", "-n", "-v", device);
  return [...text.matchAll(/^#(\d+)\s/gm)].map(([, id]) => id!).filter((id) => id !== "0");
}

for (const place of places.filter(({ name }) => name.includes("project quota"))) {
  const reason = await reasonAgainst(place);
  const test = (name: string, fn: (directory: string, options: string) => Promise<void>) =>
    Deno.test({
      name: `${place.name}: ${name}`,
      ignore: reason !== undefined,
      fn: async () => {
        await using filesystem = await mounted(place.filesystem!);
        await fn(filesystem.directory, place.filesystem!.type);
      },
    });

  test("a tree from before is taken in: links, symlinks, what is made meanwhile; and nothing outside", async (directory) => {
    const { driver } = await open(directory, "p1");
    const path = driver.path(volume);
    writeFileSync(join(directory, "outside"), "x".repeat(100_000));
    mkdirSync(join(path, "a/b"), { recursive: true });
    for (let index = 0; index < 300; index++) writeFileSync(join(path, `a/b/f${index}`), "x".repeat(8000));
    linkSync(join(path, "a/b/f0"), join(path, "hard"));
    symlinkSync(join(directory, "outside"), join(path, "link"));
    tool("mkfifo", join(path, "fifo"));
    await assert.rejects(used(driver, volume), /not counted/);
    assert.equal(await fileCount(driver, volume), undefined);
    await assert.rejects(driver.facets.quota!.set(volume, MiB), /it uses [\d.]+\w?i?B already/);
    await driver.facets.quota!.set(volume, 8n * MiB);
    const before = await used(driver, volume);
    assert.ok(before > 300n * 8000n && before < 4n * MiB, String(before));
    assert.equal(
      await fileCount(driver, volume),
      303,
      "three directories and 300 files; a symlink and a FIFO cannot be given a project",
    );
    writeFileSync(join(path, "a/b/new"), "x".repeat(1_000_000));
    tool("sync", "-f", path);
    assert.ok(await used(driver, volume) >= before + 1_000_000n);
    // A file of another project cannot be moved in; a file of this project can be moved within.
    assert.throws(() => renameSync(join(directory, "outside"), join(path, "outside")), /EXDEV/);
    renameSync(join(path, "a/b/f1"), join(path, "moved"));
    assert.equal(lstatSync(join(directory, "outside")).size, 100_000);
  });

  test("two pools on one filesystem, and others' projects, do not collide", async (directory, type) => {
    const [one, two] = [await open(directory, "p1"), await open(directory, "p2")];
    // The next project id is in use by a foreign file, without a limit.
    await one.driver.create(volume);
    const [first] = records(directory);
    const foreign = String(Number(first) + 1);
    writeFileSync(join(directory, "foreign"), "x");
    if (type === "xfs") tool("xfs_io", "-c", `chproj ${foreign}`, join(directory, "foreign"));
    else tool("chattr", "-p", foreign, join(directory, "foreign"));
    await two.driver.create(volume, { sizeBytes: 16n * MiB });
    await one.driver.create(other);
    assert.equal(new Set(records(directory)).size, 4);
    for (const [driver, kib] of [[one.driver, 100], [two.driver, 200]] as const) {
      writeFileSync(join(driver.path(volume), "file"), "x".repeat(kib * 1024));
    }
    tool("sync", "-f", directory);
    assert.ok(await used(one.driver, volume) < 120n * 1024n);
    assert.ok(await used(two.driver, volume) >= 200n * 1024n);
  });

  test("deleted volumes and pools leave no record", async (directory) => {
    const { driver, pool } = await open(directory, "p1");
    await driver.create(volume, { sizeBytes: 16n * MiB });
    await driver.create(other, { sizeBytes: 16n * MiB });
    writeFileSync(join(driver.path(volume), "file"), "x");
    await driver.facets.snapshot!.create(s0);
    await driver.facets.snapshot!.restore(s0);
    await driver.facets.snapshot!.afterRestore(volume);
    assert.equal(records(directory).length, 2);
    await driver.delete(volume);
    tool("sync", "-f", directory);
    assert.equal(records(directory).length, 1);
    await driverKinds.get("dir")!.destroy(host, pool);
    tool("sync", "-f", directory);
    assert.deepEqual(records(directory), []);
  });

  test("a pool within another's project has no quotas", async (directory, type) => {
    const { driver } = await open(directory, "p1");
    await driver.create(volume);
    const within = join(driver.path(volume), "lido");
    mkdirSync(join(within, "storage-pools"), { recursive: true });
    const nested = await open(within, "p2");
    assert.match(nested.driver.absent.quota ?? "", /itself part of project \d+/);
    assert.ok(statSync(nested.pool.root).isDirectory(), type);
  });
}
