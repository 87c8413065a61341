import assert from "node:assert/strict";
import { compilePattern } from "./pattern.ts";

const rows: readonly (readonly [string, readonly string[], readonly string[]])[] = [
  ["fa", ["fa", "FA"], ["f", "fab", "xfa", ""]],
  ["f.*", ["f", "fa", "f/s0"], ["xf"]],
  ["^(fa|fb)$", ["fa", "fb"], ["fc", "fafb"]],
  ["a+b?", ["a", "aab"], ["b", "abb"]],
  ["[a-c0-9_-]*x", ["x", "b7_-x"], ["dx"]],
  ["[^a]", ["b"], ["a", ""]],
  ["v1\\.2\\d", ["v1.27"], ["v1x27"]],
  ["(?:ab)+", ["ab", "abab"], ["aba"]],
  ["", [""], ["a"]],
  ["(a*)*", ["", "aaa"], ["b"]],
];

Deno.test("patterns match whole texts, in either case", () => {
  for (const [pattern, yes, no] of rows) {
    const test = compilePattern(pattern);
    for (const text of yes) assert.equal(test(text), true, `${pattern} ${text}`);
    for (const text of no) assert.equal(test(text), false, `${pattern} ${text}`);
  }
});

Deno.test("a pattern that is none says why", () => {
  for (
    const [pattern, why] of [["(a", /missing/], ["*", /nothing to repeat/], ["[a", /too early/], [
      "a)",
      /not expected/,
    ]] as const
  ) {
    assert.throws(() => compilePattern(pattern), why);
  }
  assert.throws(() => compilePattern("(?=a)"), /plain groups/);
  assert.throws(() => compilePattern("a".repeat(2000)), /more than 1024/);
});

Deno.test("no pattern runs away", () => {
  for (const pattern of ["(a+)+b", "(a|a)*b", ".*.*.*.*.*.*.*.*.*.*b", "(a*)*(a*)*b"]) {
    assert.equal(compilePattern(pattern)("a".repeat(2000)), false);
  }
});
