import assert from "node:assert/strict";
import { controlSignalsIn, isInit } from "./init_up.ts";

const status = (state: string, blocked: string, caught: string) =>
  `Name:\tinit\nState:\t${state}\nSigBlk:\t${blocked}\nSigIgn:\t0000000180000000\nSigCgt:\t${caught}\n`;
const none = "0000000000000000";

Deno.test("an init that has come through its set-up is known by its signals, another program is not taken for one", () => {
  const cases = [
    ["busybox init", "S (sleeping)", none, "0000000000080000", "caught"],
    ["systemd", "S (sleeping)", "7fe3c0fe28014a03", "00000000000004ec", "blocked"],
    ["systemd before it blocks its signals: handlers for crashes", "R (running)", none, "00000000000004ec", undefined],
    ["bash, which catches SIGCHLD", "S (sleeping)", none, "0000000000010000", undefined],
    ["python, which catches SIGINT", "S (sleeping)", none, "0000000000000002", undefined],
    ["sleep", "S (sleeping)", none, none, undefined],
    ["a zombie", "Z (zombie)", "7fe3c0fe28014a03", none, undefined],
  ] as const;
  for (const [what, state, blocked, caught, expected] of cases) {
    assert.equal(controlSignalsIn(status(state, blocked, caught)), expected, what);
  }
});

Deno.test("an init is known by its executable, and one of many programs by its name; a script in its place is none", () => {
  const cases = [
    ["/usr/lib/systemd/systemd", "systemd", false, true],
    ["/usr/sbin/init", "init", false, true],
    ["/bin/busybox", "init", false, true],
    ["/usr/bin/runit", "runit", false, true],
    ["/bin/busybox", "init", true, false],
    ["/bin/busybox", "sh", false, false],
    ["/bin/busybox", "busybox", false, false],
    ["/usr/bin/dash", "init", true, false],
    ["/usr/bin/python3.11", "python3", false, false],
    ["/app/server", "init", false, false],
  ] as const;
  for (const [executable, name, isScript, expected] of cases) {
    assert.equal(isInit(executable, { name, isScript }), expected, `${executable} as ${name}`);
  }
});
