import assert from "node:assert/strict";
import fc from "fast-check";
import { Replay } from "./replay.ts";

const mebibyte = 1 << 20;

Deno.test("the last MiB of all streams comes back in the order in which it was written", () => {
  const pushes = fc.array(
    fc.record({
      stream: fc.constantFrom("1", "2"),
      bytes: fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 700_000 }), fc.constant(1_500_000)),
    }),
    { maxLength: 30 },
  );
  fc.assert(
    fc.property(pushes, (list) => {
      const replay = new Replay<string>();
      const whole: [string, number][] = [];
      let next = 0;
      for (const { stream, bytes } of list) {
        const chunk = Uint8Array.from({ length: bytes }, () => next++ & 0xff);
        replay.push(stream, chunk);
        whole.push([stream, bytes]);
      }
      const got = replay.all();
      const bytes = Buffer.concat(got.map(({ chunk }) => chunk));
      const total = whole.reduce((sum, [, count]) => sum + count, 0);
      assert.equal(bytes.length, Math.min(total, mebibyte));
      assert.equal(bytes.findIndex((byte, index) => byte !== ((total - bytes.length + index) & 0xff)), -1);
      // The stream of each byte, from the end.
      let left = bytes.length;
      const expected: Record<string, number> = { 1: 0, 2: 0 };
      for (const [stream, count] of whole.reverse()) {
        expected[stream]! += Math.min(left, count);
        left -= Math.min(left, count);
      }
      const found: Record<string, number> = { 1: 0, 2: 0 };
      for (const { stream, chunk } of got) found[stream]! += chunk.length;
      assert.deepEqual(found, expected);
    }),
    { numRuns: 60 },
  );
});

Deno.test("streams that take turns byte by byte do not make it grow without end", () => {
  const replay = new Replay<string>();
  for (let index = 0; index < 100_000; index++) replay.push(index % 2 ? "1" : "2", new Uint8Array([index & 0xff]));
  const got = replay.all();
  assert.ok(got.length <= 16_384, `${got.length} runs`);
  assert.deepEqual([...got.at(-1)!.chunk], [99_999 & 0xff]);
});
