import assert from "node:assert/strict";
import { idInside, idOnDisk } from "./owners.ts";

const map = {
  uid: [{ container: 0, host: 100_000, count: 1000 }, { container: 5000, host: 42, count: 1 }],
  gid: [{ container: 0, host: 200_000, count: 65_536 }],
};

Deno.test("ids go there and back by the map, and stay without one", () => {
  for (const [kind, inside, onDisk] of [["uid", 0, 100_000], ["uid", 999, 100_999], ["uid", 5000, 42]] as const) {
    assert.equal(idOnDisk(map, kind, inside), onDisk);
    assert.equal(idInside(map, kind, onDisk), inside);
  }
  assert.equal(idOnDisk(map, "gid", 5), 200_005);
  assert.equal(idInside(undefined, "uid", 7), 7);
  assert.equal(idOnDisk(undefined, "gid", 7), 7);
});

Deno.test("an id that the map does not have is nobody's, and cannot be given", () => {
  assert.equal(idInside(map, "uid", 0), 65534);
  assert.throws(() => idOnDisk(map, "uid", 1000), /Invalid uid 1000: the id map of the files has no such id/);
});
