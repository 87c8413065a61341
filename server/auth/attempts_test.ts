import assert from "node:assert/strict";
import { PasswordAttempts } from "./attempts.ts";

function collect() {
  const lines: object[] = [];
  const none = () => {};
  return { lines, log: { debug: none, info: none, error: none, warn: (fields: object) => lines.push(fields) } };
}
const wrong = () => Promise.resolve(false), right = () => Promise.resolve(true);

Deno.test("a wrong password is answered late and logged, the next one later; a right one ends that", async () => {
  const { lines, log } = collect();
  const attempts = new PasswordAttempts({ log, firstDelayMs: 20 });
  const started = performance.now();
  for (const _ of [1, 2, 3]) assert.equal(await attempts.attempt("192.0.2.1", wrong), false);
  assert.ok(performance.now() - started >= 135, "20 + 40 + 80 ms");
  assert.equal(await attempts.attempt("192.0.2.1", right), true);
  assert.equal(await attempts.attempt("192.0.2.1", wrong), false);
  assert.deepEqual(
    lines,
    [[1, 20], [2, 40], [3, 80], [1, 20]].map(([wrong, delayMs]) => ({ address: "192.0.2.1", wrong, delayMs })),
  );
});

Deno.test("one attempt of a network at a time, and so many of all", async () => {
  const attempts = new PasswordAttempts({ log: collect().log, firstDelayMs: 50 });
  const first = attempts.attempt("2001:db8::1", wrong);
  // Not even the right password is accepted: otherwise parallel guesses would find it.
  await assert.rejects(attempts.attempt("2001:db8::2", right), /Too many attempts at a time/);
  const others = Array.from({ length: 15 }, (_, index) => attempts.attempt(`192.0.2.${index}`, wrong));
  await assert.rejects(attempts.attempt("192.0.2.99", right), /Too many attempts at a time/);
  await Promise.all([first, ...others]);
  assert.equal(await attempts.attempt("192.0.2.99", right), true);
});

Deno.test("a failing check is no wrong password and holds no place", async () => {
  const { lines, log } = collect();
  const attempts = new PasswordAttempts({ log });
  await assert.rejects(attempts.attempt("192.0.2.1", () => Promise.reject(new Error("no memory"))), /no memory/);
  assert.equal(await attempts.attempt("192.0.2.1", right), true);
  assert.deepEqual(lines, []);
});
