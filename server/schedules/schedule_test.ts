import assert from "node:assert/strict";
import { expiryAfter, expiryProblem, nextRun, scheduleProblem } from "./schedule.ts";

const at = new Date(2026, 0, 31, 10, 20, 30);
const text = (date: Date | undefined) =>
  date && [date.getFullYear(), date.getMonth() + 1, date.getDate(), date.getHours(), date.getMinutes()].join(" ");

Deno.test("schedules: cron, names, several, never", () => {
  assert.equal(text(nextRun("@hourly", at)), "2026 1 31 11 0");
  assert.equal(text(nextRun("@daily", at)), "2026 2 1 0 0");
  assert.equal(text(nextRun("@weekly", at)), "2026 2 1 0 0");
  assert.equal(text(nextRun("*/15 * * * *", at)), "2026 1 31 10 30");
  assert.equal(text(nextRun("0 6,18 * * *", at)), "2026 1 31 18 0");
  assert.equal(text(nextRun("0 6 * * *, 30 10 * * *", at)), "2026 1 31 10 30");
  assert.equal(text(nextRun("@yearly,@hourly", at)), "2026 1 31 11 0");
  assert.equal(nextRun("@never", at), undefined);
  assert.equal(nextRun("", at), undefined);
  for (const wrong of ["@often", "* * * *", "* * * * * *", "61 * * * *", "x", "0 6 * * *, x"]) {
    assert.match(scheduleProblem(wrong) ?? "", /Invalid schedule/, wrong);
  }
});

Deno.test("expiry: LXD's units", () => {
  assert.equal(text(expiryAfter("1M", at)), "2026 1 31 10 21");
  assert.equal(text(expiryAfter("1d 2H", at)), "2026 2 1 12 20");
  assert.equal(text(expiryAfter("2w", at)), "2026 2 14 10 20");
  assert.equal(text(expiryAfter("1y", at)), "2027 1 31 10 20");
  assert.equal(expiryAfter("", at), undefined);
  for (const wrong of ["1", "d", "1x", "-1d", "1d2H"]) {
    assert.match(expiryProblem(wrong) ?? "", /Invalid expiry/, wrong);
  }
  assert.equal(expiryProblem("7000y"), undefined);
  for (const late of ["8000y", "999999y", "999999m", "999999w 999999w 999999w 999999w 999999w"]) {
    assert.match(expiryProblem(late) ?? "", /up to the year 9999/, late);
  }
});
