/** A start reports an init that does not stay alive, and a stop one that does not end. */
import assert from "node:assert/strict";
import { mkdirSync, renameSync, rmdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { InstanceFull, Operation } from "../../../api/types.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { slowness } from "../../support/slowness.ts";

Deno.test("an init that ends at once, and one that ignores signals", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("init", "bb", "c1", "-s", "plain");
  const init = join(daemon.directory, "storage-pools/plain/containers/c1/rootfs/sbin/init");
  // Replaced in one step: a container that reboots in a loop may be just about to execute it.
  const setInit = (content: string | Uint8Array, mode = 0o755) => {
    writeFileSync(`${init}.new`, content, { mode });
    if (statSync(init, { throwIfNoEntry: false })?.isDirectory()) rmdirSync(init);
    renameSync(`${init}.new`, init);
  };
  const script = (text: string) => setInit(`#!/bin/sh\n${text}\n`);
  const info = async () => await daemon.query("/1.0/instances/c1?recursion=1") as InstanceFull;

  await t.step(
    "its exit code, its console's last words and the cause are in the error, in info and in the log",
    async () => {
      script("printf '\\033[31mcannot\\007 go on\\033[0m\\n' > /proc/self/fd/2; exit 3");
      await daemon.fails(
        ["start", "c1"],
        /^Error: Failed to start "c1": its init ended after \d+ ms with exit code 3\. Its console ends with: cannot go on\n$/,
      );
      const { state, status } = await info();
      assert.equal(status, "Stopped");
      assert.deepEqual([state!.last_exit!.exit_code, state!.last_exit!.console], [3, ["cannot go on"]]);
      const shown = await daemon.ok("info", "c1");
      assert.match(shown, /^Last exit: .*, with exit code 3$/m);
      assert.match(shown, /^ {4}cannot go on$/m);
      assert.match(daemon.log, /"instance":"c1","exit":"with exit code 3".*"the init ended at once"/);
    },
  );

  await t.step("late within the first second", async () => {
    script("sleep 0.3; exit 1");
    await daemon.fails(["start", "c1"], /its init ended after \d{3} ms with exit code 1/);
    // Entrypoint scripts usually begin with a trap.
    script('trap "echo bye" TERM; sleep 0.05; exec /usr/bin/nosuch');
    await daemon.fails(["start", "c1"], /its init ended after \d+ ms with exit code 127/);
    script("trap : TERM PWR CHLD HUP; sleep 0.6; exit 5");
    await daemon.fails(["start", "c1"], /its init ended after \d{3} ms with exit code 5/);
  });

  await t.step("what the kernel does not execute says why", async () => {
    setInit("#!/bin/nosuch -x\n");
    await daemon.fails(
      ["start", "c1"],
      /with exit code 1: the interpreter "\/bin\/nosuch" of "\/sbin\/init" does not exist\./,
    );
    const elf = Buffer.alloc(200);
    elf.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
    elf.writeUInt16LE(2, 16);
    elf.writeUInt16LE(243, 18);
    setInit(elf);
    await daemon.fails(["start", "c1"], /"\/sbin\/init" is a program for another machine \(RISC-V, 64-bit\)/);
    setInit("#!/bin/sh\n", 0o644);
    await daemon.fails(["start", "c1"], /not executable/);
    rmSync(init);
    await daemon.fails(["start", "c1"], /`\/sbin\/init` not found .*\(its image has no init\)/);
    assert.match(await daemon.ok("info", "c1"), /^Last exit: .*, before it was started: .*its image has no init/m);
    mkdirSync(init);
    await daemon.fails(
      ["start", "c1"],
      /^Error: Failed to start "c1": .*\(the init of its image is not a regular file\)/,
    );
    // The container never ran.
    assert.equal((await info()).status, "Stopped");
  });

  await t.step("a limit with which nothing can start is named", async () => {
    script('/bin/true && exec sleep 9; echo "fork failed" >/proc/self/fd/2; exit 1');
    await daemon.ok("config", "set", "c1", "limits.processes=1");
    await daemon.fails(
      ["start", "c1"],
      /^Error: Failed to start "c1": its init ended after \d+ ms with exit code \d+: it could start no more processes \(limits\.processes is 1\)/,
    );
    script("exec 2>/dev/null\n/bin/true; exit 7");
    await daemon.fails(["start", "c1"], /could start no more processes \(limits\.processes is 1\)\n$/);
    // With nesting, crun itself forks.
    await daemon.ok("config", "set", "c1", "limits.processes=0", "security.nesting=true");
    await daemon.fails(["start", "c1"], /\(it could start no more processes: limits\.processes is 0\)\n$/);
    await daemon.ok("config", "unset", "c1", "security.nesting");
    // -1 means no limit, as in LXD.
    await daemon.ok("config", "set", "c1", "limits.processes=-1");
    for (const value of ["-2", "4194305", "x"]) {
      await daemon.fails(
        ["config", "set", "c1", `limits.processes=${value}`],
        new RegExp(`"limits.processes": Invalid value for an? (limit|integer) "${value}"`),
      );
    }
    script("/bin/true && exit 0");
    await daemon.ok("start", "c1");
    await daemon.ok("config", "unset", "c1", "limits.processes");
    await daemon.ok("config", "set", "c1", "limits.memory=4MiB", "limits.memory.swap=false");
    // The kernel may kill any process of the container, not only the one that allocates.
    setInit("#!/bin/sh\ndd if=/dev/zero of=/dev/null bs=64M count=1; exit 3\n");
    await daemon.fails(
      ["start", "c1"],
      /its init ended after \d+ ms .*: the kernel killed a process of it for want of memory \(limits\.memory is 4MiB\)/,
    );
    assert.match(await daemon.ok("info", "c1"), /limits\.memory is 4MiB/);
    await daemon.ok("config", "unset", "c1", "limits.memory");
    await daemon.ok("config", "unset", "c1", "limits.memory.swap");
  });

  await t.step("an init that is meant to end is no failure, and said", async () => {
    script("exit 0");
    let { code, err } = await daemon.lido(["start", "c1"]);
    assert.deepEqual([code, err], [0, 'Note: "c1" ended at once with exit code 0\n']);
    script("poweroff -f; sleep 10");
    ({ code, err } = await daemon.lido(["start", "c1"]));
    assert.deepEqual([code, err], [0, 'Note: "c1" ended at once by switching itself off\n']);
    assert.equal((await info()).state!.last_exit!.cause, "");
    assert.equal(await daemon.lxc("list", "-f", "csv", "-c", "ns"), "c1,STOPPED");
  });

  await t.step(
    "an init that sets no handler is started after a second, a usual one at once and without a word",
    async () => {
      script("while :; do sleep 1; done");
      const before = performance.now();
      await daemon.ok("start", "c1");
      assert.ok(performance.now() - before >= 1000);
      await daemon.ok("stop", "-f", "c1");
      assert.match(await daemon.ok("info", "c1"), /^Last exit: .*, killed by a forced stop$/m);
      await daemon.ok("init", "bb", "c2");
      let leastMs = Infinity;
      // Repeat: a busy machine can delay one round, but not all.
      for (let round = 0; leastMs >= 1000 && round < 5; round++) {
        const started = performance.now();
        const { code, err } = await daemon.lido(["start", "c2"]);
        leastMs = Math.min(leastMs, performance.now() - started);
        assert.deepEqual([code, err], [0, ""]);
        if (leastMs >= 1000) await daemon.ok("stop", "-f", "c2");
      }
      if (slowness === 1) assert.ok(leastMs < 1000, "it costs no waiting");
    },
  );

  await t.step("a forced stop takes over a clean one that waits in vain", async () => {
    script('trap "" PWR INT TERM; trap : USR1; while :; do sleep 1; done');
    for (
      const [first, last, after] of [["stop", "stop", "Stopped"], ["restart", "stop", "Stopped"], [
        "stop",
        "restart",
        "Running",
      ]] as const
    ) {
      if ((await info()).status === "Stopped") await daemon.ok("start", "c1");
      const waiting = daemon.lido([first, "c1"]);
      await untilBusy(daemon, first === "stop" ? "Stopping instance" : "Restarting instance");
      await daemon.fails(["stop", "c1"], new RegExp(`Instance is busy running a "${first}" operation`));
      await daemon.ok(last, "-f", "c1");
      const { code, err } = await waiting;
      if (first === "restart") assert.match(err, /^Error: Cannot restart "c1": a forced stop took over/);
      assert.equal(code, first === "restart" ? 1 : 0, err);
      assert.equal((await info()).status, after);
    }
    const waiting = daemon.lido(["stop", "c1"]);
    await untilBusy(daemon, "Stopping instance");
    await daemon.ok("delete", "-f", "c1");
    assert.equal((await waiting).code, 0);
    await daemon.fails(["info", "c1"], /not found/);
  });

  await t.step("a container that reboots in a loop obeys, and does not keep the daemon from its end", async () => {
    await daemon.ok("init", "bb", "c1", "-s", "plain");
    for (const [seconds, ...verb] of [[0, "stop", "-f"], [0.2, "stop", "-f"], [0.7, "stop", "-f"], [0.2, "stop"]]) {
      script(`sleep ${seconds}; reboot -f; sleep 5`);
      await daemon.ok("start", "c1");
      await untilRebooted(info);
      const before = performance.now();
      await daemon.ok(...verb as string[], "c1");
      assert.ok(performance.now() - before < 8000 * slowness, `${verb} of ${seconds}`);
      assert.equal((await info()).status, "Stopped");
    }
    await daemon.ok("start", "c1");
    await untilRebooted(info);
    await daemon.ok("restart", "-f", "c1");
    const before = performance.now();
    assert.equal(await daemon.terminate(), 0);
    assert.ok(performance.now() - before < 8000 * slowness, "it ended");
    await daemon.up();
    await untilRebooted(info);
    script("exit 4");
    while ((await info()).state!.last_exit!.exit_code !== 4);
    assert.equal((await info()).status, "Stopped");
    assert.match(daemon.log, /"error":"Failed to start [^\n]*"could not start a container that boots again"/);
    await daemon.ok("delete", "-f", "c1");
  });

  await t.step("Ctrl-C ends the wait, and so does the daemon's end", async () => {
    await daemon.ok("init", "bb", "c1", "-s", "plain");
    script('trap "" PWR; trap : USR1; while :; do sleep 1; done');
    await daemon.ok("start", "c1");
    const interrupt = new AbortController();
    const stopped = daemon.lido(["stop", "c1"], { interrupt: interrupt.signal });
    await untilBusy(daemon, "Stopping instance");
    interrupt.abort();
    assert.match((await stopped).err, /Operation cancelled/);
    await daemon.ok("pause", "c1"); // the lock is free
    await daemon.ok("start", "c1");
    const waiting = daemon.lido(["stop", "c1"]);
    await untilBusy(daemon, "Stopping instance");
    const before = performance.now();
    assert.equal(await daemon.terminate(), 0);
    assert.ok(performance.now() - before < 10_000, "it did not wait for the clean stop");
    assert.equal((await waiting).code, 1);
    await daemon.up();
    assert.equal((await info()).status, "Running");
  });

  await t.step("reboot and poweroff from inside are what they are after the daemon was restarted, too", async () => {
    const state = async () => (await daemon.query("/1.0/instances/c2?recursion=1") as InstanceFull).state!;
    const { pid } = await state();
    await daemon.lido(["exec", "c2", "--", "reboot", "-f"]);
    while ([0, pid].includes((await state()).pid));
    assert.equal((await state()).last_exit!.description, "to boot again");
    await daemon.kill();
    await daemon.up();
    await daemon.lido(["exec", "c2", "--", "poweroff", "-f"]);
    while ((await state()).status !== "Stopped");
    assert.equal((await state()).last_exit!.description, "by switching itself off");
  });
});

/** Waits until the container has ended in order to reboot. */
async function untilRebooted(info: () => Promise<InstanceFull>): Promise<void> {
  const { last_exit } = (await info()).state!;
  while ((await info()).state!.last_exit?.at === last_exit?.at);
  assert.equal((await info()).state!.last_exit!.description, "to boot again");
}

/** Waits until an operation with this description runs. */
async function untilBusy(daemon: Daemon, description: string): Promise<void> {
  for (;;) {
    const operations = await daemon.query("/1.0/operations?recursion=1") as Record<string, Operation[]>;
    if ((operations.running ?? []).some((operation) => operation.description === description)) return;
  }
}
