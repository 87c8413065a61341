/** A clean stop reaches an init that starts to listen late. */
import assert from "node:assert/strict";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { arch } from "node:os";
import { join } from "node:path";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { slowness } from "../../support/slowness.ts";
import { signalReader64 } from "../../support/tiny_elf.ts";

/** Longer than the time in which a start is watched, and than earlier versions kept sending the signal. */
const lateS = 4;
/** For an init that is ready after `lateS` and ends at its signal. */
const stopLimitMs = 20_000;

Deno.test("a clean stop reaches an init that begins to listen late", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("init", "bb", "c1", "-s", "plain");
  const root = join(daemon.directory, "storage-pools/plain/containers/c1/rootfs");
  const script = (text: string) => {
    rmSync(join(root, "sbin/init"), { force: true });
    writeFileSync(join(root, "sbin/init"), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  };
  const state = async () => (await daemon.query("/1.0/instances/c1") as { status: string }).status;
  const stops = async (...verb: string[]) => {
    const { code, err } = await daemon.lido([...verb, "c1"], { timeoutMs: stopLimitMs });
    assert.deepEqual([code, err], [0, ""]);
  };
  const trap = 'trap "exit 0" PWR; while :; do sleep 1 & wait $!; done';

  await t.step("a handler that is set late", async () => {
    script(`sleep ${lateS}; ${trap}`);
    await daemon.ok("start", "c1");
    await stops("stop");
    assert.equal(await state(), "Stopped");
  });

  await t.step("the same by restart; and a limit that is shorter ends the wait and nothing else", async () => {
    await daemon.ok("start", "c1");
    await daemon.fails(["stop", "c1", "--timeout", "1"], /context deadline exceeded/);
    assert.equal(await state(), "Running");
    await stops("restart");
    assert.equal(await state(), "Running");
    await daemon.ok("stop", "-f", "c1");
  });

  await t.step("a handler that does not do what it is for at first, as sysvinit's while it boots", async () => {
    script("n=0; trap 'n=$((n + 1)); [ $n -lt 4 ] || exit 0' PWR; while :; do sleep 1 & wait $!; done");
    await daemon.ok("start", "c1");
    await stops("stop");
  });

  await t.step("a script that ends with `exec` of busybox's init, whose waiting cannot be seen", async () => {
    script(`sleep ${lateS}; exec /bin/busybox init`);
    await daemon.ok("start", "c1");
    await stops("stop");
  });

  await t.step({
    name: "a script that ends with `exec` of systemd" + (arch() === "x64" ? "" : ": the program is for x86-64"),
    ignore: arch() !== "x64",
    fn: async () => {
      mkdirSync(join(root, "lib/systemd"), { recursive: true });
      writeFileSync(join(root, "lib/systemd/systemd"), signalReader64(37), { mode: 0o755 });
      script(`sleep ${lateS}; exec /lib/systemd/systemd`);
      await daemon.ok("start", "c1");
      await stops("stop");
    },
  });

  await t.step("an init that has booted again by itself and does not listen yet", async () => {
    script(`[ -e /booted ] || { : >/booted; sleep 1.5; reboot -f; sleep 10; }; rm /booted; sleep ${lateS}; ${trap}`);
    await daemon.ok("start", "c1");
    const pid = async () => (await daemon.query("/1.0/instances/c1/state") as { pid: number }).pid;
    const first = await pid();
    const limit = performance.now() + 15_000 * slowness;
    while ([0, first].includes(await pid())) assert.ok(performance.now() < limit, "it has not booted again");
    await stops("stop");
    assert.equal(await state(), "Stopped");
  });
});
