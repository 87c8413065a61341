import assert from "node:assert/strict";
import { allowedKeys } from "./allowed.ts";

const many = [
  "limits.cpu",
  "limits.memory",
  "boot.autostart",
  "user.",
  ..."abcdefghij".split("").map((one) => `x.${one}`),
];

Deno.test("allowedKeys() names the keys of the same group, else all that there are, else their groups", () => {
  assert.equal(allowedKeys("limits.cpus", many), "limits.cpu, limits.memory are allowed");
  assert.equal(allowedKeys("boot.x", many), "boot.autostart is allowed");
  assert.equal(allowedKeys("foo", many), "boot.*, limits.*, user.*, x.* are allowed");
  assert.equal(allowedKeys("foo", ["size", "source", "user."]), "size, source, user.* are allowed");
  const deep = ["a.one", ...Array.from({ length: 20 }, (_, index) => `a.b.k${index}`), "c.one"];
  assert.equal(allowedKeys("a.x", deep), "a.b.*, a.one are allowed");
  assert.equal(allowedKeys("foo", []), "none is allowed");
});
