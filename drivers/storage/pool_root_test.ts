import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deletePoolRoot } from "./pool_root.ts";

Deno.test("the directory of a pool goes with a late record in it, and not with what is somebody's", async () => {
  const base = mkdtempSync(join(tmpdir(), "lido-pool-root-"));
  const root = join(base, "pool");
  try {
    await deletePoolRoot(root);
    mkdirSync(join(root, ".lido-records/open"), { recursive: true });
    writeFileSync(join(root, ".lido-records/pool.yaml"), "x");
    await deletePoolRoot(root);
    assert.equal(existsSync(root), false);
    mkdirSync(join(root, "mine"), { recursive: true });
    mkdirSync(join(root, ".lido-records"));
    await assert.rejects(deletePoolRoot(root), { code: "conflict", message: /it has "mine", which is not its own$/ });
    assert.equal(existsSync(join(root, ".lido-records")), true);
  } finally {
    rmSync(base, { recursive: true });
  }
});
