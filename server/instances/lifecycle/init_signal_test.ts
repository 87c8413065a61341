import assert from "node:assert/strict";
import { haltSignal } from "./init_signal.ts";

Deno.test("haltSignal() knows systemd by what it reads from a descriptor, and waits for it to do so", () => {
  const systemd = "/usr/lib/systemd/systemd";
  const reading = 0x7fe3c0fe28014a03n, sysvinit = 0x280b2e03n;
  const cases = [
    ["systemd", { program: systemd, caught: 0x4ecn, read: reading }, 37],
    ["systemd that has another name", { program: "/init", caught: 0x4ecn, read: reading }, 37],
    ["systemd before it listens", { program: systemd, caught: 0x4ecn, read: 0n }, undefined],
    ["sysvinit", { program: "/usr/sbin/init", caught: sysvinit, read: 0n }, 30],
    ["busybox", { program: "/bin/busybox", caught: 0x80000n, read: 0n }, 30],
    ["what has ended", { program: "", caught: 0n, read: 0n }, 30],
  ] as const;
  for (const [what, listener, expected] of cases) assert.equal(haltSignal(listener), expected, what);
});
