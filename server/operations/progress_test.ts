import assert from "node:assert/strict";
import { partsOf, progressOn } from "./progress.ts";

const MiB = 1n << 20n;

/** Texts of an operation, and its progress, with a clock of their own. */
function watched(total?: () => Promise<bigint | undefined>) {
  const texts: unknown[] = [], percents: unknown[] = [];
  let now = 0;
  const update = (metadata: Record<string, unknown>) => {
    texts.push(metadata.fs_progress);
    percents.push((metadata.progress as { percent?: string }).percent);
  };
  const progress = progressOn({ update }, "data", total, () => now);
  const after = (seconds: number, work: () => void) => {
    now += seconds * 1000;
    work();
  };
  return { texts, percents, progress, after };
}

Deno.test("progressOn() asks for a total once, never goes backwards, and says no more than it knows", async () => {
  let asked = 0;
  const { texts, progress, after } = watched(() => {
    asked++;
    return Promise.resolve(100n * MiB);
  });
  after(1, () => progress(10n * MiB));
  await Promise.resolve();
  after(1, () => progress(40n * MiB));
  after(1, () => progress(5n * MiB)); // counted from 0 again
  after(1, () => progress(200n * MiB)); // the total was too low
  assert.deepEqual(texts, [
    "data: 10.00MiB (10.00MiB/s)",
    "data: 40% of 100.00MiB (20.00MiB/s, 3s left)",
    "data: 99% of 100.00MiB (50.00MiB/s)",
  ]);
  assert.equal(asked, 1);
});

Deno.test("progressOn() goes on without a total that cannot be had; one that the work tells comes first", async () => {
  const failing = watched(() => Promise.reject(new Error("the pool is away")));
  failing.after(1, () => failing.progress(0n));
  await Promise.resolve();
  failing.after(1, () => failing.progress(MiB));
  assert.deepEqual(failing.texts, ["data: 0B (0B/s)", "data: 1.00MiB (512.00KiB/s)"]);

  const told = watched(() => Promise.reject(new Error("must not be asked")));
  told.after(1, () => told.progress(MiB, 4n * MiB));
  assert.deepEqual(told.texts, ["data: 25% of 4.00MiB (1.00MiB/s, 3s left)"]);
});

Deno.test("partsOf() adds up what each part counts from nothing", () => {
  const seen: bigint[] = [];
  const part = partsOf((bytes) => seen.push(bytes));
  const first = part().progress!;
  first(1n);
  first(3n);
  const second = part().progress!;
  second(0n);
  second(4n);
  assert.deepEqual(seen, [1n, 3n, 3n, 7n]);
  assert.deepEqual(partsOf(undefined)(), {});
});
