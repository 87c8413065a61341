import assert from "node:assert/strict";
import { parse } from "yaml";
import { slowness } from "../../tests/support/slowness.ts";
import { parseHostileYaml } from "./hostile_yaml.ts";

const sizeBytes = 1 << 20;

/** A text of 1 MiB. */
function long(part: (index: number) => string): string {
  const parts: string[] = [];
  for (let index = 0, length = 0; length < sizeBytes; index++) length += parts[parts.push(part(index)) - 1]!.length;
  return parts.join("");
}

const hostile: readonly (readonly [string, () => string])[] = [
  ["keys", () => long((index) => `k${index}: 1\n`)],
  ["as many keys as are allowed", () => Array.from({ length: 29_000 }, (_, index) => `k${index}: 1\n`).join("")],
  ["brackets", () => "[".repeat(sizeBytes)],
  ["brackets in brackets", () => long(() => `- ${"[".repeat(90)}${"]".repeat(90)}\n`)],
  ["items in items", () => "- ".repeat(sizeBytes / 2)],
  ["items in items of many lines", () => long(() => `${"- ".repeat(90)}a\n`)],
  ["items in one line", () => `[${long(() => "a,")}]`],
  ["lines that go in and in", () => Array.from({ length: 1400 }, (_, index) => `${" ".repeat(index)}a:\n`).join("")],
  ["names and what they stand for", () => long((index) => `- &a${index} 1\n- *a${index}\n`)],
  ["mistakes in one line", () => `a: "${"\\q".repeat(sizeBytes / 2)}"`],
  ["anchors of one thing", () => `a: ${"&x ".repeat(sizeBytes / 3)}`],
  ["texts behind a text", () => `a: ${"'' ".repeat(sizeBytes / 3)}`],
  ["ends of nothing", () => `a: ${"] ".repeat(sizeBytes / 2)}`],
  ["tags", () => `a: ${"!x ".repeat(sizeBytes / 3)}`],
  ["as many texts as are allowed", () => `a: ${"'' ".repeat(29_000)}`],
  ["tabs", () => `a:${"\t".repeat(sizeBytes)}b`],
  ["mistakes in many lines", () => long(() => "a: b: c\n")],
  ["comments", () => long(() => "#\n")],
  ["spaces", () => `a${" ".repeat(sizeBytes)}: b`],
  ["a text of many lines", () => `a: |\n${long(() => " x\n")}`],
];

Deno.test("YAML that is made to hold its reader holds him for a moment", async (t) => {
  for (const [name, text] of hostile) {
    await t.step(name, () => {
      const made = text(), started = performance.now();
      try {
        parseHostileYaml(made);
      } catch (error) {
        assert.ok((error as Error).message.length < 500, (error as Error).message.slice(0, 500));
      }
      const took = performance.now() - started;
      assert.ok(took < 5_000 * slowness, `${took} ms`);
    });
  }
});

Deno.test("YAML is read as the library reads it, and what is wrong has its place", () => {
  const text = "a: 1\nb: [x, {y: 2026-11-28}]\nc: &n\n  - |\n    text\nd: *n\n'e': \"[[\"\n";
  assert.deepEqual(parseHostileYaml(text), parse(text));
  assert.equal(parseHostileYaml(""), null);
  assert.throws(() => parseHostileYaml("a: 1\nb: 'x"), /^Error: Missing closing 'quote at line 2, column \d+$/);
  assert.throws(() => parseHostileYaml("a: 1\nb: 2\na: 3\n"), /Map keys must be unique: "a"/);
  assert.throws(() => parseHostileYaml("a: &x [1]\nb: [*x, *x, *x, *x, *x, *x, *x, *x, *x, *x, *x, *x]\n"), /alias/);
  assert.throws(() => parseHostileYaml(`${"a: {".repeat(101)}`), /It is nested more than 100 deep/);
});
