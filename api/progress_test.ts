import assert from "node:assert/strict";
import { progressNumbers, showDuration, showProgress } from "./progress.ts";

const MiB = 1024 * 1024;

Deno.test("showProgress() has a percentage, a rate and the time left, in one system of units", () => {
  const half = { done: 512 * MiB, total: 1024 * MiB, elapsedMs: 2000 };
  assert.equal(showProgress("data", half), "data: 50% of 1.00GiB (256.00MiB/s, 2s left)");
  assert.equal(showProgress("data", { done: 512 * MiB, elapsedMs: 2000 }), "data: 512.00MiB (256.00MiB/s)");
  assert.equal(
    showProgress("Remapping", { done: 1000, total: 4000, elapsedMs: 500, unit: "files" }),
    "Remapping: 25% of 4000 files (2000 files/s, 2s left)",
  );
});

Deno.test("progressNumbers() never says that it is over, and guesses nothing it cannot know", () => {
  assert.deepEqual(progressNumbers({ done: 120, total: 100, elapsedMs: 1000 }), { percent: 99, rate: 120 });
  assert.deepEqual(progressNumbers({ done: 0, total: 100, elapsedMs: 1000 }), { percent: 0, rate: 0 });
  assert.deepEqual(progressNumbers({ done: 5, total: 0, elapsedMs: 0 }), { rate: 0 });
  assert.deepEqual([5, 99, 100, 725, 6000, 12_000].map(showDuration), [
    "5s",
    "99s",
    "1m40s",
    "12m05s",
    "1h40m",
    "3h20m",
  ]);
});
