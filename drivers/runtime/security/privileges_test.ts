/** The privileges of a container's root: capabilities and the writable part of /sys. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { withContainer } from "../../../tests/support/running_container.ts";

const bits = { SYS_MODULE: 16, SYS_RAWIO: 17, SYS_TIME: 25, MAC_OVERRIDE: 32, MAC_ADMIN: 33 };
/** CHECKPOINT_RESTORE's number. */
const lastKnown = 40;
const last = Math.min(lastKnown, Number(readFileSync("/proc/sys/kernel/cap_last_cap", "utf8")));
const every = (1n << BigInt(last + 1)) - 1n;
const setsOf = (status: string) =>
  Object.fromEntries(
    [...status.matchAll(/^Cap(\w+):\s*([0-9a-f]+)$/gm)].map(([, name, hex]) => [name, BigInt(`0x${hex}`)]),
  );

Deno.test("an unprivileged container has every capability in its user namespace, whatever the daemon lacks", () =>
  withContainer(async ({ run, runtime }) => {
    const ofCommand = setsOf((await run(["cat", "/proc/self/status"])).output);
    assert.deepEqual(ofCommand, { Inh: 0n, Prm: every, Eff: every, Bnd: every, Amb: 0n });
    const ofInit = setsOf(readFileSync(`/proc/${runtime.get("c1")!.pid}/status`, "utf8"));
    assert.deepEqual(ofInit, { Inh: 0n, Prm: every, Eff: every, Bnd: every, Amb: 0n });
    assert.equal((await run(["cat", "/proc/self/status"], { uid: 1000 })).output.match(/CapEff:\s*0+\n/)?.length, 1);
  }));

Deno.test("a privileged container has the daemon's capabilities without those that LXD drops, and its network's /sys to write to", () =>
  withContainer(async ({ run }) => {
    const dropped = Object.values(bits).reduce((sum, bit) => sum | (1n << BigInt(bit)), 0n);
    const daemons = setsOf(readFileSync("/proc/self/status", "utf8")).Bnd!;
    const wanted = daemons & ~dropped;
    const sets = setsOf((await run(["cat", "/proc/self/status"])).output);
    assert.deepEqual(sets, { Inh: 0n, Prm: wanted, Eff: wanted, Bnd: wanted, Amb: 0n });
    const script = `for file in /sys/devices/virtual/net/lo/ifalias /sys/class/net/lo/ifalias; do
  echo from $file >$file && cat $file
done
ls /sys/devices/virtual/net
touch /sys/kernel/x 2>&1
grep ' /sys' /proc/self/mounts | grep sysfs`;
    const { output } = await run(["sh", "-c", script]);
    assert.match(output, /^from \/sys\/devices\/virtual\/net\/lo\/ifalias\nfrom \/sys\/class\/net\/lo\/ifalias\n/);
    // Only its own network's interface is there, and /sys is read-only elsewhere.
    assert.match(output, /ifalias\nlo\ntouch:/);
    assert.match(output, /touch: .*: Read-only file system\n/);
    assert.match(
      output,
      /^sysfs \/sys sysfs ro,nosuid,nodev,noexec,relatime 0 0\nsysfs \/sys\/devices\/virtual\/net sysfs rw,nosuid,nodev,noexec,relatime 0 0$/m,
    );
  }, { idmap: undefined, rootfsShifted: false }));
