/** Full disks: the database's and those of pools. A change without room is refused with the reason and leaves nothing; deletions succeed; with
 * room again, everything works. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { Filesystem } from "../../support/filesystem.ts";
import { busyboxImage } from "../../support/image.ts";
import { storageState } from "../../support/storage_state.ts";

const full = /No space left on device/;

Deno.test("the disk of the daemon's own database is full", async (t) => {
  await using disk = await Filesystem.make("ext4", 64);
  await using elsewhere = await Filesystem.make("ext4", 64);
  await using daemon = await Daemon.start({ directory: join(disk.path, "lido") });
  await daemon.ok("storage", "create", "here", "dir");
  await succeed(["mkdir", join(elsewhere.path, "pool")]);
  await daemon.ok("storage", "create", "there", "dir", `source=${join(elsewhere.path, "pool")}`);
  const state = () => storageState(daemon, ["here", "there"]);
  for (const name of ["a", "b"]) {
    await daemon.ok("storage", "volume", "create", "there", name);
    await daemon.ok("storage", "volume", "snapshot", "there", name, "s0");
  }
  await daemon.ok("storage", "volume", "create", "here", "big");
  const file = join(elsewhere.path, "backup.tar.gz");
  await daemon.ok("storage", "volume", "export", "there", "a", file);
  disk.fill();

  await t.step("what is begun before the last byte is used is done, what comes later is refused", async () => {
    let made = 0;
    for (;; made++) {
      assert.ok(made < 200, "the database's disk is not full");
      const { code, err } = await daemon.lido(["storage", "volume", "create", "there", `v${made}`]);
      if (code === 0) continue;
      assert.match(err, full);
      assert.match(err, /lido\.db/);
      break;
    }
    const volumes = (await state()).filter((name) => name.startsWith("there/v"));
    assert.equal(volumes.length, made);
  });

  await t.step("nothing else changes either, on any pool", async () => {
    const before = await state();
    const operations: readonly string[][] = [
      ["storage", "volume", "create", "there", "x"],
      ["storage", "volume", "create", "here", "x"],
      ["storage", "volume", "rename", "there", "a", "x"],
      ["storage", "volume", "snapshot", "there", "a", "x"],
      ["storage", "volume", "copy", "there/a", "there/x"],
      ["storage", "volume", "copy", "there/a", "here/x"],
      ["storage", "volume", "move", "there/a", "here/x"],
      ["storage", "volume", "import", "there", file, "x"],
      ["storage", "volume", "set", "there", "a", "user.note=1"],
      ["storage", "create", "x", "btrfs", "size=128MiB"],
      ["storage", "create", "x", "dir"],
    ];
    for (const argv of operations) await daemon.fails(argv, full);
    assert.deepEqual(await state(), before);
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  });

  await t.step("a daemon that is killed starts on the full disk", async () => {
    const before = await state();
    await daemon.kill();
    disk.fill();
    await daemon.up();
    assert.deepEqual(await state(), before);
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  });

  await t.step("what makes room can be done", async () => {
    await daemon.ok("storage", "volume", "delete", "there", "a");
    await daemon.ok("storage", "volume", "delete", "there", "b/s0");
    await daemon.ok("storage", "volume", "delete", "here", "big");
    await daemon.fails(["storage", "volume", "create", "there", "x"], full);
    const left = (await state()).filter((name) => !name.startsWith("there/v"));
    assert.deepEqual(left, ["there/b"]);
  });

  await t.step("with room, all goes on; the names that were refused are free", async () => {
    disk.free();
    await daemon.ok("storage", "volume", "create", "there", "x");
    await daemon.ok("storage", "volume", "copy", "there/b", "here/x");
    await daemon.terminate();
    await daemon.up();
    const kept = (await state()).filter((name) => !name.startsWith("there/v"));
    assert.deepEqual(kept, ["here/x", "there/b", "there/x"]);
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  });
});

Deno.test("a pool's disk is full", async (t) => {
  await using small = await Filesystem.make("ext4", 48);
  await using daemon = await Daemon.start();
  await succeed(["mkdir", join(small.path, "pool")]);
  await daemon.ok("storage", "create", "d", "dir", `source=${join(small.path, "pool")}`);
  await daemon.ok("storage", "create", "b", "btrfs", "size=128MiB");
  await daemon.ok("storage", "create", "roomy", "dir");
  const pools = ["b", "d", "roomy"];
  await daemon.ok("storage", "volume", "create", "roomy", "big");
  const root = join(daemon.directory, "storage-pools");
  await succeed(["bash", "-c", `head -c 130000000 /dev/urandom >${root}/roomy/custom/default_big/data`]);
  const file = `${daemon.directory}.log.backup`;
  await daemon.ok("storage", "volume", "export", "roomy", "big", file, "--compression", "none");
  try {
    for (const pool of ["b", "d"]) {
      await t.step(`${pool}: copy, move and import that do not fit`, async () => {
        await daemon.ok("storage", "volume", "create", pool, "kept");
        await succeed(["bash", "-c", `echo content >${root}/${pool}/custom/default_kept/file`]);
        const before = await storageState(daemon, pools);
        await daemon.fails(["storage", "volume", "copy", "roomy/big", `${pool}/x`], full);
        await daemon.fails(["storage", "volume", "move", "roomy/big", `${pool}/x`], full);
        await daemon.fails(["storage", "volume", "import", pool, file, "x"], full);
        assert.deepEqual(await storageState(daemon, pools), before);
      });
    }

    await t.step("d: a snapshot, a restore and a copy within the pool that do not fit", async () => {
      await succeed(["bash", "-c", `head -c 20000000 /dev/urandom >${root}/d/custom/default_kept/data`]);
      await daemon.ok("storage", "volume", "snapshot", "d", "kept", "s0");
      const before = await storageState(daemon, pools);
      const sum = () => succeed(["bash", "-c", `cd ${root}/d/custom/default_kept && sha256sum *`]);
      const content = await sum();
      await daemon.fails(["storage", "volume", "snapshot", "d", "kept", "s1"], full);
      await daemon.fails(["storage", "volume", "copy", "d/kept", "d/x"], full);
      await daemon.fails(["storage", "volume", "restore", "d", "kept", "s0"], full);
      assert.deepEqual(await storageState(daemon, pools), before);
      assert.equal(await sum(), content);
    });

    await t.step("b: filled to the last byte, it can be emptied", async () => {
      await daemon.lido(["query", "/1.0"]);
      await succeed(["bash", "-c", `head -c 500M /dev/urandom >${root}/b/custom/default_kept/data; sync; true`]);
      const failed: string[] = [];
      for (let number = 0; failed.length === 0; number++) {
        assert.ok(number < 5_000, "the pool is not full");
        const { code, err } = await daemon.lido(["storage", "volume", "create", "b", `v${number}`]);
        if (code !== 0) failed.push(err);
        else if (number > 8) break; // btrfs reserves room for small changes
      }
      for (const err of failed) assert.match(err, full);
      await storageState(daemon, pools);
      await daemon.ok("storage", "volume", "delete", "b", "kept");
      await daemon.ok("storage", "volume", "create", "b", "after");
    });

    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  } finally {
    await succeed(["rm", "-f", file]);
  }
});

Deno.test("a recovery record that does not fit on the pool's disk is named to who has changed it", async () => {
  await using small = await Filesystem.make("ext4", 48);
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await succeed(["mkdir", join(small.path, "pool")]);
  await daemon.ok("storage", "create", "d", "dir", `source=${join(small.path, "pool")}`);
  await daemon.ok("init", "bb", "c1", "-s", "d");
  await daemon.ok("storage", "volume", "create", "d", "v");
  small.fill();
  const long = "x".repeat(8192);
  const changes = [
    ["instance c1", "config", "set", "c1"],
    ["volume d/v", "storage", "volume", "set", "d", "v"],
  ] as const;
  for (const [record, ...argv] of changes) {
    const { code, err } = await daemon.lido([...argv, `user.note=${long}`]);
    assert.equal(code, 0, err);
    const told = err.split("\n").filter((line) => line.startsWith("Note: "));
    assert.equal(told.length, 1, err);
    assert.ok(told[0]!.startsWith(`Note: recovery record of ${record}: not written (`), err);
    assert.match(told[0]!, /no space left on device/i);
    const check = await daemon.lido(["admin", "check"]);
    assert.ok(check.out.includes(`/${record.replace(/^.*[ /]/, "")} `), check.out);
  }
  // Other users' requests do not get the note.
  assert.equal((await daemon.lido(["profile", "create", "other"])).err, "");
  small.free();
  for (const [, ...argv] of changes) {
    assert.equal((await daemon.lido([...argv, "user.note=short"])).err, "");
  }
  assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
});
