import assert from "node:assert/strict";
import { progressOf } from "./shift_progress.ts";

/** The progress shown for a tree whose passes have reported these numbers of entries, one a second. */
function shown(files: number | undefined, passes: readonly (readonly [of: number, ...entries: number[]])[]): string[] {
  const texts: string[] = [];
  let now = 0;
  const update = (metadata: Record<string, unknown>) => void texts.push(String(metadata.container_progress));
  const tree = progressOf({ update }, () => now)("storage volume", files);
  for (const [index, [of, ...entries]] of passes.entries()) {
    const told = tree({ index, of });
    for (const count of entries) {
      now += 1000;
      told(count);
    }
  }
  return texts.map((text) => text.replace("Remapping storage volume: ", ""));
}

Deno.test("progressOf() has a percentage of files that are known before, over all walks", () => {
  assert.deepEqual(shown(1000, [[1, 250, 1000]]), [
    "25% of 1000 files (250 files/s, 3s left)",
    "99% of 1000 files (500 files/s)",
  ]);
  assert.deepEqual(shown(1000, [[2, 500, 1000], [2, 500, 1000]]).map((text) => text.split(" ")[0]), [
    "25%",
    "50%",
    "75%",
    "99%",
  ]);
});

Deno.test("progressOf() has none in a first walk that nobody has counted for, and never goes backwards", () => {
  assert.deepEqual(shown(undefined, [[2, 500, 1000], [2, 500]]), [
    "500 files (500 files/s)",
    "1000 files (500 files/s)",
    "75% of 1000 files (250 files/s, 1s left)",
  ]);
  // More entries than files (hard links), and a third pass that was not expected.
  assert.deepEqual(shown(800, [[2, 500, 1000], [3, 100, 1000], [3, 1000]]).map((text) => text.split(" ")[0]), [
    "31%",
    "50%",
    "50%",
    "66%",
    "99%",
  ]);
});
