import assert from "node:assert/strict";
import { lstatSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeDirectoriesBeneath } from "./beneath_mkdir.ts";

Deno.test("makeDirectoriesBeneath() makes what is missing and never leaves the tree", () => {
  const base = mkdtempSync(join(tmpdir(), "lido-mkdir-"));
  try {
    const root = join(base, "root");
    mkdirSync(root);
    makeDirectoriesBeneath(root, "/etc/a/../b/c", { uid: 5, gid: 6 });
    assert.equal(statSync(join(root, "etc/b/c")).uid, 5);
    makeDirectoriesBeneath(root, "etc/b/c", { uid: 0, gid: 0 });
    assert.equal(statSync(join(root, "etc/b/c")).uid, 5, "what is there stays as it is");
    symlinkSync(base, join(root, "out"));
    assert.throws(() => makeDirectoriesBeneath(root, "/out/planted", { uid: 0, gid: 0 }), /ELOOP/);
    makeDirectoriesBeneath(root, "/../../planted", { uid: 0, gid: 0 });
    assert.ok(lstatSync(join(root, "planted")).isDirectory());
    assert.throws(() => lstatSync(join(base, "planted")));
  } finally {
    rmSync(base, { recursive: true });
  }
});
