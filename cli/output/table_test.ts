import assert from "node:assert/strict";
import { compact, table } from "./table.ts";
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

Deno.test("table() fits any width, and no row of the compact form ends in spaces", () => {
  const images = ["ALIAS", "FINGERPRINT", "PUBLIC", "DESCRIPTION", "ARCHITECTURE", "TYPE", "SIZE", "UPLOAD DATE"];
  const image = ["busybox", "9c1f0a8e2b7d", "no", "", "x86_64", "CONTAINER", "0.84MiB", "2026/11/28 01:30 UTC"];
  const strange = ["漢字漢字漢字", "two\nlines of it", "", "a", "b", "c", "d", ""];
  for (const [titles, lines] of [[images, [image, strange]], [headers, rows]] as const) {
    for (let columns = 1; columns <= 150; columns++) {
      for (const text of [table(titles, lines, columns), compact(titles, lines, columns)]) {
        assert.ok(widest(text) <= columns, `${columns} columns, ${widest(text)}:\n${text}`);
        assert.doesNotMatch(text, / $/m);
        assert.match(text.split("\n")[0]!, /\S/);
      }
    }
  }
});

Deno.test("compact() elides first, then drops empty columns, then those on the right", () => {
  const titles = ["NAME", "NOTE", "KIND", "SIZE", "CREATED"];
  const lines = [["alphabet", "", "container", "12.5MiB", "2026/11/28"]];
  const shown = (columns: number) => compact(titles, lines, columns).split("\n")[1]!.trim().split(/ +/);
  assert.deepEqual(shown(80), ["alphabet", "container", "12.5MiB", "2026/11/28"]);
  assert.deepEqual(shown(24), ["alp…", "con…", "12.…", "202…"]);
  assert.match(compact(titles, lines, 24), /^NAME NOTE KIND SIZE CRE…\n/);
  assert.match(compact(titles, lines, 23), /^NAME {2}KIND {2}SIZE {2}CREA…\nalph… cont… 12.5… 2026…\n$/);
  assert.deepEqual(shown(15), ["alph…", "con…", "12.…"]);
  assert.deepEqual(shown(5), ["alph…"]);
  assert.deepEqual(shown(2), ["a…"]);
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
