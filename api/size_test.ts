import assert from "node:assert/strict";
import { showBytes, showUnequalBytes } from "./size.ts";

Deno.test("showBytes() and showUnequalBytes() write binary units; two sizes that would look the same are exact", () => {
  assert.deepEqual([0, 1023, 1536, 5n * 1024n ** 3n].map((bytes) => showBytes(bytes)), [
    "0B",
    "1023B",
    "1.50KiB",
    "5.00GiB",
  ]);
  assert.deepEqual(showUnequalBytes(64n << 20n, 16n << 20n), ["64.00MiB", "16.00MiB"]);
  assert.deepEqual(showUnequalBytes(64n << 20n, (64n << 20n) + 4096n), ["67108864B", "67112960B"]);
});
