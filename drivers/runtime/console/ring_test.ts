import assert from "node:assert/strict";
import { ConsoleRing, ringBytesMax } from "./ring.ts";

const bytes = (length: number, from = 0) => Uint8Array.from({ length }, (_, index) => (from + index) % 251);

Deno.test("the ring holds the last bytes, whatever the pieces they came in", () => {
  for (const piece of [1, 7, 4095, 4096, 65536, ringBytesMax, ringBytesMax + 1, 3 * ringBytesMax]) {
    const ring = new ConsoleRing();
    const total = 2 * ringBytesMax + 12_345;
    const all = bytes(total);
    for (let at = 0; at < total; at += piece) {
      ring.push(all.subarray(at, at + piece));
      if (piece < 4096 && at > 20_000) continue; // content() copies all of it
      const pushed = Math.min(total, at + piece);
      assert.deepEqual(ring.content(), all.slice(Math.max(0, pushed - ringBytesMax), pushed), `pieces of ${piece}`);
    }
    assert.deepEqual(ring.content(), all.slice(total - ringBytesMax));
  }
});

Deno.test("a ring that was cleared begins anew", () => {
  const ring = new ConsoleRing();
  ring.push(bytes(ringBytesMax + 5));
  ring.clear();
  assert.equal(ring.content().length, 0);
  ring.push(bytes(3));
  assert.deepEqual(ring.content(), bytes(3));
});
