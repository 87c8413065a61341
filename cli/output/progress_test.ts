import assert from "node:assert/strict";
import { fitProgress } from "./progress.ts";
import { displayWidth } from "./text.ts";

Deno.test("fitProgress() cuts the name at its front, then all but the numbers, and fits any width", () => {
  const text = "/srv/images/debian.img: 76% of 300.00MiB (127.21MiB/s, 1s left)";
  assert.equal(fitProgress(text, Infinity), text);
  assert.equal(fitProgress(text, text.length), text);
  assert.equal(fitProgress(text, 50), "…bian.img: 76% of 300.00MiB (127.21MiB/s, 1s left)");
  assert.equal(fitProgress(text, 20), "76% of 300.00MiB (1…");
  assert.equal(fitProgress("名前: 5%", 7), "…前: 5%");
  for (let columns = 1; columns < 70; columns++) {
    for (const one of [text, "名前名前名前: 12% of 3 files (1 files/s)", "no numbers in it at all"]) {
      assert.ok(displayWidth(fitProgress(one, columns)) <= columns, `${columns}: ${fitProgress(one, columns)}`);
    }
  }
});
