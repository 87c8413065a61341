import assert from "node:assert/strict";
import { haltSignal } from "./init_signal.ts";

Deno.test("haltSignal() knows systemd by what it blocks, and waits for it to do so", () => {
  const none = "SigBlk:\t0000000000000000\nSigCgt:\t0000000000080000\n";
  assert.equal(haltSignal("/usr/lib/systemd/systemd", "SigBlk:\t7be3c0fe28014a03\nSigCgt:\t00000000000004ec\n"), 37);
  assert.equal(haltSignal("/usr/lib/systemd/systemd", none), undefined);
  assert.equal(haltSignal("/bin/busybox", none), 30);
  assert.equal(haltSignal("/sbin/init", none), 30);
});
