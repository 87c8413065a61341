import assert from "node:assert/strict";
import { mountAttributes, propagationOf } from "./mount_options.ts";

Deno.test("mountAttributes(): the later option wins, and one time of access excludes the others", () => {
  assert.deepEqual(mountAttributes([]), { set: 0n, clear: 0n });
  assert.deepEqual(mountAttributes(["ro", "nosuid"]), { set: 3n, clear: 0n });
  assert.deepEqual(mountAttributes(["ro", "rw"]), { set: 0n, clear: 1n });
  assert.deepEqual(mountAttributes(["noatime", "strictatime"]), { set: 0x20n, clear: 0x70n });
});

Deno.test("propagationOf() knows the recursive ones", () => {
  assert.deepEqual(propagationOf("rslave"), { flag: 1n << 19n, recursive: true });
  assert.deepEqual(propagationOf("private"), { flag: 1n << 18n, recursive: false });
});
