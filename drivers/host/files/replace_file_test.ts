import assert from "node:assert/strict";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { removeFile, replaceFile } from "./replace_file.ts";

Deno.test("replaceFile() replaces symlinks and leftovers, follows nothing, and leaves nothing beside", async () => {
  const root = mkdtempSync(join(tmpdir(), "lido-replace-"));
  try {
    mkdirSync(join(root, "c1"));
    writeFileSync(join(root, "victim"), "mine");
    symlinkSync("../victim", join(root, "c1/backup.yaml"));
    symlinkSync("../victim", join(root, "c1/.backup.yaml.lido"));
    await replaceFile(root, "c1", "backup.yaml", "text", 0o400);
    assert.equal(readFileSync(join(root, "victim"), "utf8"), "mine");
    assert.equal(readFileSync(join(root, "c1/backup.yaml"), "utf8"), "text");
    assert.equal(statSync(join(root, "c1/backup.yaml")).mode & 0o7777, 0o400);
    await replaceFile(root, "c1", "backup.yaml", "other", 0o400);
    assert.deepEqual(readdirSync(join(root, "c1")), ["backup.yaml"]);
    assert.equal(readFileSync(join(root, "c1/backup.yaml"), "utf8"), "other");
    symlinkSync("c1", join(root, "c2"));
    await assert.rejects(replaceFile(root, "c2", "backup.yaml", "x", 0o400), /ELOOP|ENOTDIR/);
    await assert.rejects(replaceFile(root, "nosuch", "backup.yaml", "x", 0o400), /ENOENT/);
    await removeFile(root, "c1", "backup.yaml");
    await removeFile(root, "c1", "backup.yaml");
    await removeFile(root, "nosuch", "backup.yaml");
    assert.deepEqual(readdirSync(join(root, "c1")), []);
  } finally {
    rmSync(root, { recursive: true });
  }
});
