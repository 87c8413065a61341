import assert from "node:assert/strict";
import { haltSignal } from "./init_signal.ts";

Deno.test("haltSignal() tells systemd, sysvinit and busybox apart by what they wait for", () => {
  assert.equal(haltSignal("SigBlk:\t7be3c0fe28014a03\nSigCgt:\t00000000000004ec\n"), 37);
  assert.equal(haltSignal("SigBlk:\t0000000000000000\nSigCgt:\t0000000020000000\n"), 30);
  assert.equal(haltSignal("SigBlk:\t0000000000000800\nSigCgt:\t0000000000000000\n"), 12);
  assert.equal(haltSignal("SigBlk:\t0000000000000000\nSigCgt:\t0000000000000000\n"), undefined);
  assert.equal(haltSignal(""), undefined);
});
