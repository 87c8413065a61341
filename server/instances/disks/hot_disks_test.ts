import assert from "node:assert/strict";
import { difference } from "./hot_disks.ts";

const disk = (path: string, source = "/srv") => ({ type: "disk", path, source });
const targets = (from: Record<string, ReturnType<typeof disk>>, to: Record<string, ReturnType<typeof disk>>) => {
  const { removed, added } = difference(from, to);
  return [removed.map(({ target }) => target), added.map(({ target }) => target)];
};

Deno.test("difference() is what changed, parents first", () => {
  assert.deepEqual(targets({}, { b: disk("/a/b"), a: disk("/a") }), [[], ["/a", "/a/b"]]);
  assert.deepEqual(targets({ a: disk("/a"), c: disk("/c") }, { c: disk("/c") }), [["/a"], []]);
  assert.deepEqual(targets({ a: disk("/a") }, { a: disk("/a", "/other") }), [["/a"], ["/a"]]);
});

Deno.test("difference() plugs what stays below something that comes or goes again", () => {
  const below = disk("/a/b"), beside = disk("/ab");
  assert.deepEqual(targets({ below, beside }, { a: disk("/a"), below, beside }), [["/a/b"], ["/a", "/a/b"]]);
  assert.deepEqual(targets({ a: disk("/a"), below, beside }, { below, beside }), [["/a", "/a/b"], ["/a/b"]]);
});
