import assert from "node:assert/strict";
import { parseStatus } from "./device_mapper.ts";

/** The kernel's answer: the head, followed by one target. */
function answer(type: string, parameters: string, count = 1): Uint8Array {
  const bytes = new Uint8Array(1024), view = new DataView(bytes.buffer);
  view.setUint32(16, 312, true);
  view.setUint32(20, count, true);
  bytes.set(new TextEncoder().encode(type), 312 + 24);
  bytes.set(new TextEncoder().encode(parameters), 312 + 40);
  return bytes;
}

Deno.test("parseStatus() reads the first target", () => {
  const parameters = "1 115/1024 0/65344 - rw discard_passdown queue_if_no_space - 1024";
  assert.deepEqual(parseStatus(answer("thin-pool", parameters)), { type: "thin-pool", parameters });
});

Deno.test("parseStatus() of nothing, or of what is cut off, is nothing", () => {
  assert.equal(parseStatus(answer("thin-pool", "", 0)), undefined);
  assert.equal(parseStatus(answer("thin-pool", "x").subarray(0, 320)), undefined);
});
