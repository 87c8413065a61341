/** Limits on volumes and root disks, by the real client and ours. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

Deno.test("quotas: set, grow, refuse to shrink below use, lift, live", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  const fill = (path: string, mebibytes: number) =>
    succeed(["dd", "if=/dev/urandom", `of=${path}`, "bs=1M", `count=${mebibytes}`, "conv=fsync", "status=none"]);
  const state = async (name: string) =>
    (await daemon.query(`/1.0/storage-pools/fast/volumes/custom/${name}/state`) as {
      usage: { used: number; total: number; estimated?: boolean };
    }).usage;
  const path = join(daemon.directory, "storage-pools/fast/custom/default_v");

  await t.step("lxc sets a limit that holds, grows it and lifts it", async () => {
    await daemon.lxc("storage", "volume", "create", "fast", "v", "size=20MiB");
    await assert.rejects(fill(join(path, "big"), 40), /quota exceeded/i);
    await daemon.lxc("storage", "volume", "set", "fast", "v", "size", "60MiB");
    await fill(join(path, "big"), 40);
    const { used, total } = await state("v");
    assert.equal(total, 60 * 1024 * 1024);
    assert.ok(used >= 40 * 1024 * 1024 && used < 45 * 1024 * 1024, String(used));
  });

  await t.step("below what is used it is refused, and nothing has changed", async () => {
    await assert.rejects(
      daemon.lxc("storage", "volume", "set", "fast", "v", "size", "30MiB"),
      /Cannot limit custom volume "v" to 30\.00MiB: it uses [\d.]+MiB already/,
    );
    assert.equal((await state("v")).total, 60 * 1024 * 1024);
    assert.equal(await daemon.lxc("storage", "volume", "get", "fast", "v", "size"), "60MiB");
  });

  await t.step("a copy has the limit of its own settings, a restore keeps it", async () => {
    await daemon.lxc("storage", "volume", "snapshot", "fast", "v", "s0");
    await daemon.lxc("storage", "volume", "copy", "fast/v", "fast/w");
    assert.equal((await state("w")).total, 60 * 1024 * 1024);
    await daemon.lxc("storage", "volume", "unset", "fast", "w", "size");
    assert.equal((await state("w")).total, 0);
    await daemon.lxc("storage", "volume", "restore", "fast", "v", "s0");
    assert.equal((await state("v")).total, 60 * 1024 * 1024);
    assert.equal((await state("w")).total, 0);
  });

  await t.step("limits hold however many volumes are deleted, at once or after their bytes were counted", async () => {
    const pool = join(daemon.directory, "storage-pools/fast");
    const [id] = (await succeed(["findmnt", "-no", "UUID", pool])).split("\n");
    const isInconsistent = () => Number(readFileSync(`/sys/fs/btrfs/${id}/qgroups/inconsistent`, "utf8")) === 1;
    for (let round = 0; round < 8; round++) {
      await daemon.ok("storage", "volume", "create", "fast", "gone", "size=20MiB");
      await fill(join(pool, "custom/default_gone/some"), 1);
      if (round % 2 === 0) await succeed(["btrfs", "filesystem", "sync", pool]);
      await daemon.ok("storage", "volume", "delete", "fast", "gone");
      assert.equal(isInconsistent(), false, `after round ${round}`);
    }
    // If the kernel stops counting for another reason, the next deletion repairs it.
    await succeed(["btrfs", "qgroup", "create", "1/77", pool]);
    const top = await succeed(["btrfs", "inspect-internal", "rootid", path]);
    await succeed(["btrfs", "qgroup", "assign", "--no-rescan", `0/${top.trim()}`, "1/77", pool]);
    assert.equal(isInconsistent(), true, "the kernel was not made to give up counting");
    await daemon.ok("storage", "volume", "create", "fast", "gone");
    await daemon.ok("storage", "volume", "delete", "fast", "gone");
    // Poll: the kernel does not report the end of its count.
    for (const end = Date.now() + 30_000; isInconsistent();) {
      assert.ok(Date.now() < end, "the kernel does not count again");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await succeed(["btrfs", "qgroup", "remove", `0/${top.trim()}`, "1/77", pool]);
    await succeed(["btrfs", "qgroup", "destroy", "1/77", pool]);
  });

  await t.step("a root disk's limit changes while it runs", async () => {
    await daemon.ok("launch", "bb", "c1");
    await daemon.lxc("config", "device", "override", "c1", "root", "size=30MiB");
    const write = (mebibytes: number) =>
      daemon.lido(["exec", "c1", "--", "dd", "if=/dev/urandom", "of=/root/big", "bs=1M", `count=${mebibytes}`]);
    assert.notEqual((await write(50)).code, 0);
    await daemon.lxc("config", "device", "set", "c1", "root", "size", "100MiB");
    assert.equal((await write(50)).code, 0);
    await succeed(["btrfs", "filesystem", "sync", join(daemon.directory, "storage-pools/fast")]);
    await daemon.fails(["config", "device", "set", "c1", "root", "size=20MiB"], /Cannot limit container volume "c1"/);
    const { devices } = await daemon.query("/1.0/instances/c1") as { devices: Record<string, { size: string }> };
    assert.equal(devices.root!.size, "100MiB");
  });

  await t.step("where nothing can enforce it, it is refused with the reason", async () => {
    const reason = /Cannot limit the size of volume "\w+": .*(project quotas|"project" and "quota"|prjquota)/;
    await assert.rejects(daemon.lxc("storage", "volume", "create", "plain", "v", "size=20MiB"), reason);
    await daemon.ok("storage", "volume", "create", "plain", "u");
    await daemon.fails(["storage", "volume", "set", "plain", "u", "size=20MiB"], reason);
    const usage = (await daemon.query("/1.0/storage-pools/plain/volumes/custom/u/state") as {
      usage: { estimated?: boolean };
    }).usage;
    assert.equal(usage.estimated, true, "walked, and said so");
  });
});
