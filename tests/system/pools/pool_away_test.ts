/** Pools that vanish under the daemon: changes are refused with the reason, nothing is written to the directory in their place, other pools are
 * served, and the pools work again when they are back. */
import assert from "node:assert/strict";
import {
  copyFileSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
} from "node:fs";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { StoragePool } from "../../../api/types.ts";
import { succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { RawClient } from "../../support/raw.ts";
import { storageState } from "../../support/storage_state.ts";

const backAfterMs = 30_000;

Deno.test("pools that are pulled away", async (t) => {
  await using daemon = await Daemon.start();
  const raw = new RawClient(daemon.directory);
  const outside = `${daemon.directory}.lxc`; // deleted with the daemon
  mkdirSync(join(outside, "bound"), { recursive: true });
  await daemon.ok("storage", "create", "a", "btrfs", "size=300MiB");
  await daemon.ok("storage", "create", "other", "btrfs", "size=150MiB");
  await daemon.ok("storage", "create", "plain", "dir");
  await daemon.ok("storage", "create", "bound", "dir", `source=${join(outside, "bound")}`);
  const rootOf = (pool: string) => join(daemon.directory, "storage-pools", pool);
  for (const pool of ["a", "plain", "bound"]) {
    await daemon.ok("storage", "volume", "create", pool, "kept");
    writeFileSync(join(rootOf(pool), "custom/default_kept/file"), pool);
  }

  const pool = async (name: string) =>
    (await raw.ask("GET", `/1.0/storage-pools/${name}`)).body.metadata as StoragePool & { reason: string };
  const create = async (name: string, volume: string) => {
    const post = { name: volume, type: "custom" };
    return await raw.ask("POST", `/1.0/storage-pools/${name}/volumes/custom`, post);
  };

  /** @param what Describes the content of the pool's path meanwhile. */
  async function isAway(name: string, reason: RegExp, what?: () => unknown): Promise<void> {
    const before = what?.();
    const answer = await create(name, "new");
    assert.equal(answer.status, 503);
    assert.match(answer.body.error, new RegExp(`^Storage pool "${name}" is unavailable: `));
    assert.match(answer.body.error, reason);
    const operations: readonly string[][] = [
      ["storage", "volume", "delete", name, "kept"],
      ["storage", "volume", "rename", name, "kept", "new"],
      ["storage", "volume", "snapshot", name, "kept", "new"],
      ["storage", "volume", "copy", `${name}/kept`, "other/new"],
    ];
    for (const argv of operations) await daemon.fails(argv, /is unavailable: /);
    const shown = await pool(name);
    assert.equal(shown.status, "Unavailable");
    assert.match(shown.reason, reason);
    assert.deepEqual(what?.(), before, "something was written to what is there instead");
    // The other pools are served.
    assert.equal((await create("other", "new")).status, 201);
    await daemon.ok("storage", "volume", "delete", "other", "new");
  }

  /** Waits until the loop device is detached: the daemon does it in the background when it tries the unavailable pool again. */
  async function detached(path: string): Promise<void> {
    const deadline = Date.now() + backAfterMs;
    for (let left; (left = await succeed(["losetup", "-j", path])) !== "";) {
      assert.ok(Date.now() < deadline, `still attached: ${left}`);
    }
  }

  async function comesBack(name: string): Promise<void> {
    const deadline = Date.now() + backAfterMs;
    while ((await pool(name)).status !== "Created") {
      assert.ok(Date.now() < deadline, `the pool did not come back: ${(await pool(name)).reason}`);
      await new Promise((resolve) => setTimeout(resolve, 200)); // the daemon tries again at a request, at most every two seconds
    }
    assert.equal(readFileSync(join(rootOf(name), "custom/default_kept/file"), "utf8"), name);
    assert.equal((await create(name, "new")).status, 201);
    await daemon.ok("storage", "volume", "delete", name, "new");
    assert.deepEqual(await storageState(daemon, ["a", "bound", "other", "plain"]), [
      "a/kept",
      "bound/kept",
      "plain/kept",
    ]);
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  }

  const root = rootOf("a"), file = join(daemon.directory, "disks/a.img"), aside = join(outside, "aside.img");

  await t.step("unmounted: mounted again by the daemon, and nothing in the directory below", async () => {
    const content = () => readdirSync(root);
    await succeed(["umount", "-l", root]);
    assert.deepEqual(content(), []);
    const answer = await create("a", "new");
    assert.match(answer.body.error, /"a" is unavailable: It is not mounted at/);
    await comesBack("a");
    await succeed(["umount", "-l", rootOf("bound")]);
    assert.match((await create("bound", "new")).body.error, /"bound" is unavailable: It is not mounted at/);
    await comesBack("bound");
  });

  for (const name of ["a", "plain", "bound"]) {
    await t.step(`something else is mounted over it (${name})`, async () => {
      await succeed(["mount", "-t", "tmpfs", "none", rootOf(name)]);
      writeFileSync(join(rootOf(name), "foreign"), "1");
      await isAway(
        name,
        /It is not mounted at .* any more, or something else is/,
        () => readdirSync(rootOf(name), { recursive: true }),
      );
      await succeed(["umount", rootOf(name)]);
      await comesBack(name);
    });
  }

  await t.step("an empty pool is not deleted through what is mounted over it", async () => {
    await daemon.ok("storage", "create", "empty", "dir");
    await succeed(["mount", "-t", "tmpfs", "none", rootOf("empty")]);
    mkdirSync(join(rootOf("empty"), "custom/foreign"), { recursive: true });
    await daemon.fails(["storage", "delete", "empty"], /Cannot delete storage pool "empty": /);
    assert.deepEqual(readdirSync(join(rootOf("empty"), "custom")), ["foreign"]);
    await succeed(["umount", rootOf("empty")]);
    await daemon.ok("storage", "delete", "empty");
  });

  await t.step("its loop file is moved away, and back", async () => {
    renameSync(file, aside);
    await isAway("a", /Its file ".*a\.img" was taken away; what is in it is still at/);
    renameSync(aside, file);
    await comesBack("a");
  });

  await t.step("its loop file is deleted, and linked again", async () => {
    linkSync(file, join(daemon.directory, "disks/link"));
    rmSync(file);
    await isAway("a", /was taken away/);
    renameSync(join(daemon.directory, "disks/link"), file);
    await comesBack("a");
  });

  await t.step(
    "its loop file is replaced: the old one goes on being there until it is unmounted, then the new one is taken",
    async () => {
      await succeed(["sync", "-f", root]);
      copyFileSync(file, aside);
      rmSync(file);
      await succeed(["cp", "--sparse=always", aside, file]);
      await isAway("a", /was replaced by another/, () => readdirSync(root, { recursive: true }));
      await succeed(["umount", root]);
      await comesBack("a");
      rmSync(aside);
    },
  );

  await t.step("a directory is moved away, and back", async () => {
    renameSync(rootOf("plain"), join(outside, "plain"));
    await isAway("plain", /was taken away/);
    assert.equal(readdirSync(join(daemon.directory, "storage-pools")).includes("plain"), false);
    renameSync(join(outside, "plain"), rootOf("plain"));
    await comesBack("plain");
  });

  await t.step("away when the daemon starts: the others are served, and it comes back", async () => {
    await daemon.terminate();
    await succeed(["umount", root]);
    renameSync(file, aside);
    await daemon.up();
    await isAway("a", /doesn't exist/);
    renameSync(aside, file);
    await comesBack("a");
  });

  await t.step("its loop file is cut: refused, and the pool can be deleted", async () => {
    await daemon.ok("storage", "create", "cut", "btrfs", "size=150MiB");
    const path = join(daemon.directory, "disks/cut.img");
    truncateSync(path, 1 << 20);
    assert.match(
      (await create("cut", "new")).body.error,
      /Its file ".*cut\.img" was cut from 150\.00MiB to 1\.00MiB/,
    );
    await daemon.ok("storage", "delete", "cut");
  });

  await t.step("a loop file that holds no filesystem: no loop device stays attached", async () => {
    await daemon.ok("storage", "create", "broken", "btrfs", "size=150MiB");
    const path = join(daemon.directory, "disks/broken.img");
    await daemon.terminate();
    await succeed(["umount", rootOf("broken")]);
    await succeed(["bash", "-c", `losetup -j ${path} -O NAME -n | xargs -r losetup -d`]);
    truncateSync(path, 0);
    truncateSync(path, 150 << 20);
    await daemon.up();
    assert.equal((await pool("broken")).status, "Unavailable");
    await detached(path);
    await daemon.ok("storage", "delete", "broken");
  });
});
