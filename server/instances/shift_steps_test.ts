import assert from "node:assert/strict";
import type { IdMap } from "../../drivers/runtime/runtime.ts";
import { shiftSteps } from "./shift_steps.ts";

const map = (host: number, count = 65536): IdMap => {
  const lines = [{ container: 0, host, count }];
  return { uid: lines, gid: lines };
};

Deno.test("shiftSteps() goes straight, but not where the maps overlap", () => {
  assert.deepEqual(shiftSteps(undefined, map(1_000_000)), [map(1_000_000)]);
  assert.deepEqual(shiftSteps(map(1_000_000), undefined), [undefined]);
  assert.deepEqual(shiftSteps(map(1_000_000), map(1_000_010)), [map(2 ** 31), map(1_000_010)]);
  assert.deepEqual(shiftSteps(map(2 ** 31), map(2 ** 31 + 1)).at(0), map(3 * 2 ** 30));
});
