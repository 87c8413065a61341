/** Pools as users see them: their facets, their health, and the states of unhealthy pools. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Server, StoragePool } from "../../../api/types.ts";
import { Database } from "../../../server/state/database.ts";
import { succeed } from "../../support/command.ts";
import { Filesystem } from "../../support/filesystem.ts";
import { Daemon } from "../../support/daemon.ts";

const MiB = 1024 ** 2;

Deno.test("pools: facets, health, settings, growth", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "fast", "btrfs", "size=256MiB");
  await daemon.ok("storage", "create", "plain", "dir");
  const pool = async (name: string) => await daemon.query(`/1.0/storage-pools/${name}`) as StoragePool;

  await t.step("every facet is there or has its reason", async () => {
    const all = ["clone", "health", "quota", "resize", "send", "snapshot"];
    for (const name of ["fast", "plain"]) {
      const { facets, absent, status, reason } = await pool(name);
      const named = [...facets, ...Object.keys(absent)];
      for (const facet of all) assert.ok(named.includes(facet), `${name}: ${facet} is neither there nor absent`);
      for (const [facet, why] of Object.entries(absent)) {
        assert.match(why, /\w+ \w+/, facet);
        assert.ok(!facets.includes(facet));
      }
      assert.deepEqual([status, reason], ["Created", ""]);
    }
    const info = await daemon.ok("storage", "info", "fast");
    assert.match(
      info,
      /\n {2}health: no device errors\n {2}idmapped mounts: (true|false)\nfacets:\n {2}clone: available\n/,
    );
    const plain = await daemon.ok("storage", "info", "plain");
    assert.match(plain, /\n {2}inodes used: \d+\n {2}total inodes: \d+\n/);
    assert.match(plain, /\n {2}send: a plain directory has no stream format of its own\n/);
    await daemon.fails(["query", "/1.0/storage-pools/plain/health"], /Cannot tell the health of "plain": the pool is/);
  });

  await t.step("the real client sees LXD's fields and no others", async () => {
    assert.equal(
      await daemon.lxc("storage", "show", "plain"),
      `config:\n  source: ${daemon.directory}/storage-pools/plain\ndescription: ""\nname: plain\ndriver: dir\n` +
        "used_by: []\nstatus: Created\nlocations:\n- none",
    );
    assert.equal(await daemon.ok("storage", "show", "plain"), await daemon.lxc("storage", "show", "plain"));
    assert.match(
      await daemon.lxc("storage", "info", "fast"),
      /^info:\n {2}description: ""\n {2}driver: btrfs\n {2}name: fast/,
    );
  });

  await t.step("drivers are supported with a version, or missing with a reason and their packages", async () => {
    const { environment } = await daemon.query("/1.0") as Server;
    const supported = environment.storage_supported_drivers;
    for (const one of supported) assert.deepEqual(Object.keys(one).sort(), ["Name", "Remote", "Version"]);
    assert.deepEqual(supported.filter(({ Name }) => /^(dir|btrfs)$/.test(Name)).length, 2);
    for (const { Name, Reason, Packages } of environment.storage_missing_drivers) {
      assert.ok(!supported.some((one) => one.Name === Name), Name);
      assert.match(Reason, /\w+ \w+/, Name);
      assert.ok(Packages.length > 0, Name);
    }
  });

  await t.step("settings are checked for the pool's driver, in LXD's words, and nothing is changed", async () => {
    const before = await pool("plain");
    const refused = [
      ["size", "5GiB", /^Error: Invalid option "size"/],
      ["btrfs.mount_options", "noatime", /^Error: Invalid option "btrfs.mount_options"/],
      ["bogus.key", "1", /^Error: Invalid option "bogus.key"/],
      ["volume.bogus", "1", /^Error: Invalid option "volume.bogus"/],
      ["volume.size", "abc", /^Error: Invalid value for option "volume.size": .*"abc"/],
      ["rsync.compression", "maybe", /^Error: Invalid value for option "rsync.compression": .*"maybe"/],
      ["source", "/tmp/other", /^Error: Pool source cannot be changed when not in pending state/],
    ] as const;
    for (const [key, value, pattern] of refused) await daemon.fails(["storage", "set", "plain", key, value], pattern);
    for (const [key, value, pattern] of refused) {
      const { config } = await pool("plain");
      const edited = `config: ${JSON.stringify({ ...config, [key]: value })}\ndescription: changed\n`;
      await daemon.fails(["storage", "edit", "plain"], pattern, { input: edited });
    }
    assert.deepEqual(await pool("plain"), before);
    await daemon.lxc("storage", "set", "plain", "user.note=kept", "rsync.bwlimit=10MiB");
    assert.equal(await daemon.lxc("storage", "get", "plain", "rsync.bwlimit"), "10MiB");
    await daemon.lxc("storage", "unset", "plain", "rsync.bwlimit");
    assert.deepEqual((await pool("plain")).config, { ...before.config, "user.note": "kept" });
  });

  await t.step("size grows a loop pool for real, by the real client too, and never shrinks it", async () => {
    const total = async () =>
      (await daemon.query("/1.0/storage-pools/fast/resources") as { space: { total: number } }).space.total;
    await daemon.lxc("storage", "set", "fast", "size", "400MiB");
    assert.equal(await total(), 400 * MiB);
    await daemon.lxc("storage", "set", "fast", "size=500MiB");
    assert.deepEqual([await total(), statSync(join(daemon.directory, "disks/fast.img")).size], [500 * MiB, 500 * MiB]);
    for (const size of ["400MiB", "1GB2", "-1", "0"]) {
      await daemon.fails(["storage", "set", "fast", `size=${size}`], /Cannot shrink the pool|Invalid (size|value)/);
    }
    assert.deepEqual([await total(), (await pool("fast")).config.size], [500 * MiB, "500MiB"]);
  });

  await t.step("a key that is fixed when a pool is made is not set later either", async () => {
    const { config } = await pool("fast");
    for (const key of ["btrfs.create_options=x", "source.wipe=true"]) {
      await daemon.fails(["storage", "set", "fast", key], /^Error: Option "[a-z._]+" cannot be changed/);
    }
    assert.deepEqual((await pool("fast")).config, config);
  });
});

Deno.test("a pool that cannot grow to a size is what it was, with nothing left to be done", async () => {
  await using disk = await Filesystem.make("ext4", 300);
  await using daemon = await Daemon.start({ directory: join(disk.path, "lido") });
  await daemon.ok("storage", "create", "b", "btrfs", "size=128MiB");
  const refusal = /Invalid size 100\.00TiB of the pool: the filesystem of ".*\/[bc]\.img" has no files so large/;
  await daemon.fails(["storage", "set", "b", "size=100TiB"], refusal);
  await daemon.fails(["storage", "create", "c", "btrfs", "size=100TiB"], refusal);
  assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  assert.match(await daemon.ok("storage", "show", "b"), /size: 128MiB/);
});

Deno.test("pools that are not as they should be", async (t) => {
  await using daemon = await Daemon.start();
  const outside = `${daemon.directory}.source`;
  mkdirSync(outside);
  await daemon.ok("storage", "create", "away", "dir", `source=${outside}`);
  const pool = async (name: string) => await daemon.query(`/1.0/storage-pools/${name}`) as StoragePool;
  const intent = (kind: string, payload: object) => {
    const database = new Database(join(daemon.directory, "lido.db"));
    database.run(
      "INSERT INTO journal (kind, payload, created_at) VALUES (?, ?, ?)",
      kind,
      JSON.stringify(payload),
      new Date().toISOString(),
    );
    database.close();
  };

  await t.step("one whose making was cut off and cannot be undone is Errored, and can be deleted", async () => {
    await daemon.terminate();
    const image = join(daemon.directory, "disks/broken.img");
    const config = { source: image, size: "256MiB" };
    intent("pool.create", { name: "broken", driver: "btrfs", config });
    mkdirSync(image);
    writeFileSync(join(image, "in the way"), "");
    await daemon.up();
    const { status, reason, driver } = await pool("broken");
    assert.deepEqual([status, driver], ["Errored", "btrfs"]);
    assert.match(reason, /creation was cut off/);
    assert.match(await daemon.lxc("storage", "list", "-f", "csv"), /^broken,btrfs,.*,ERRORED$/m);
    assert.match(await daemon.ok("storage", "info", "broken"), /status: Errored\n {2}reason: its creation was cut off/);
    await daemon.fails(["storage", "create", "broken", "dir"], /already exists: its creation was cut off/);
    await daemon.fails(["storage", "delete", "broken"], /./);
    rmSync(image, { recursive: true });
    await daemon.ok("storage", "delete", "broken");
    await daemon.fails(["storage", "show", "broken"], /Storage pool not found/);
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  });

  await t.step("one that cannot be opened is Unavailable with the reason; the others serve", async () => {
    await daemon.ok("storage", "create", "plain", "dir");
    await daemon.terminate();
    await succeed(["umount", join(daemon.directory, "storage-pools/away")]);
    renameSync(outside, `${outside}.moved`);
    // Creation of a volume that was interrupted before the pool vanished.
    intent("volume.create", { pool: "away", type: "custom", name: "default_v" });
    await daemon.up();
    const { status, reason, facets } = await pool("away");
    assert.deepEqual([status, facets], ["Unavailable", []]);
    assert.equal(reason, `Source path '${outside}' doesn't exist`);
    assert.match(await daemon.ok("storage", "info", "away"), /status: Unavailable\n {2}reason: Source path/);
    await daemon.fails(["storage", "volume", "create", "away", "v"], /Storage pool "away" is unavailable: Source path/);
    await daemon.ok("storage", "volume", "create", "plain", "v");
  });

  await t.step(
    "it is opened when it is back, and what waited for it is settled first: no new volume goes",
    async () => {
      const left = join(`${outside}.moved`, "custom/default_v");
      mkdirSync(left);
      renameSync(`${outside}.moved`, outside);
      const check = await daemon.lido(["admin", "check", "--repair"]);
      assert.match(check.out, /The pool is unavailable/);
      assert.equal((await pool("away")).status, "Created");
      assert.equal(existsSync(join(outside, "custom/default_v")), false, "the cut-off volume is taken away");
      await daemon.ok("storage", "volume", "create", "away", "v");
      writeFileSync(join(outside, "custom/default_v/precious"), "kept");
      await daemon.terminate();
      await daemon.up();
      assert.ok(existsSync(join(outside, "custom/default_v/precious")), "an old intent took a new volume away");
      assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
      await daemon.empty();
      rmSync(outside, { recursive: true });
    },
  );
});
