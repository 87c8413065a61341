import assert from "node:assert/strict";
import { table } from "./table.ts";
import { displayWidth, wrap } from "./text.ts";

const headers = ["NAME", "DRIVER", "SOURCE", "USED BY"];
const rows = [
  ["default", "btrfs", "/var/lib/lido/disks/default.img", "12"],
  ["plain", "dir", "/var/lib/lido/storage-pools/plain", "0"],
];
const widest = (text: string) => Math.max(...text.split("\n").map(displayWidth));
const joined = (text: string, column: number) =>
  text.split("\n").filter((line) => line.startsWith("|")).map((line) => line.split("|")[column]!.trim()).join("");

Deno.test("table() is drawn in full where it fits, and where the width is unknown", () => {
  const full = table(headers, rows);
  assert.equal(widest(full), 66);
  assert.equal(table(headers, rows, 66), full);
});

Deno.test("table() makes the widest column narrower and loses nothing", () => {
  for (const columns of [65, 55, 46]) {
    const text = table(headers, rows, columns);
    assert.equal(widest(text), columns, text);
    assert.match(text, /^\+-/);
    assert.ok(joined(text, 3).includes(rows[0]![2]!), text);
    assert.ok(joined(text, 3).includes(rows[1]![2]!), text);
    assert.match(text, /\| default \| btrfs /);
  }
});

Deno.test("table() takes the compact form where borders leave no room, one line for each row", () => {
  const text = table(headers, rows, 36);
  assert.doesNotMatch(text, /[+|]/);
  assert.equal(text.split("\n").length, 1 + rows.length + 1);
  assert.ok(widest(text) <= 36, text);
  assert.match(text, / default {2}btrfs {3}\/var\/.*… {2}12/);
});

Deno.test("table() breaks a header between its words", () => {
  const text = table(["NAME", "USED BY"], [["a".repeat(20), "1"]], 21);
  assert.match(text, /USED/);
  assert.doesNotMatch(text, /USED BY/);
  assert.equal(widest(text), 21);
});

Deno.test("wrap() keeps wide characters whole and ends with a column of one", () => {
  assert.deepEqual(wrap("漢字漢字", 5), ["漢字", "漢字"]);
  assert.deepEqual(wrap("漢", 1), ["漢"]);
  assert.deepEqual(wrap("/var/lib/lido", 9), ["/var/lib/", "lido"]);
  assert.deepEqual(wrap("made by hand", 7), ["made by", "hand"]);
});
