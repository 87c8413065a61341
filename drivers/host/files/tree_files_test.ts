import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer, text } from "node:stream/consumers";
import {
  changeIn,
  entriesIn,
  linkTargetIn,
  makeDirectoryIn,
  makeLinkIn,
  namesIn,
  readIn,
  removeIn,
  statIn,
  writeIn,
} from "./tree_files.ts";

const nobody = { uid: 65534, gid: 65533 };

async function tree(test: (root: string, base: string) => Promise<void> | void): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), "lido-tree-"));
  try {
    mkdirSync(join(base, "root/dir"), { recursive: true });
    writeFileSync(join(base, "secret"), "secret");
    await test(join(base, "root"), base);
  } finally {
    rmSync(base, { recursive: true, force: true });
  }
}

function write(root: string, path: string, content: string, append = false): Promise<void> {
  return writeIn(root, path, Readable.from([Buffer.from(content)]), { append, owner: nobody, mode: 0o640 });
}

Deno.test("a new file has the owner and mode that are given, an old one keeps its own and its links", () =>
  tree(async (root) => {
    await write(root, "/dir/f", "one");
    const { uid, gid, mode } = statSync(join(root, "dir/f"));
    assert.deepEqual([uid, gid, mode & 0o7777], [65534, 65533, 0o640]);
    changeIn(root, "dir/f", { uid: 5, mode: 0o4755 });
    linkSync(join(root, "dir/f"), join(root, "hard"));
    await write(root, "dir/f", "2");
    await write(root, "dir/f", "+3", true);
    assert.equal(readFileSync(join(root, "hard"), "utf8"), "2+3");
    const after = statIn(root, "hard")!;
    assert.deepEqual([after.uid, after.gid, after.mode & 0o777, after.sizeBytes], [5, 65533, 0o755, 3]);
  }));

Deno.test("a new file whose content breaks off is not there", () =>
  tree(async (root) => {
    const broken = Readable.from((function* () {
      yield Buffer.from("half");
      throw new Error("the client is gone");
    })());
    await assert.rejects(writeIn(root, "f", broken, { append: false, owner: nobody, mode: 0o600 }), /client is gone/);
    assert.deepEqual(readdirSync(root), ["dir"]);
  }));

Deno.test("what is read ends where the file ended when it was opened", () =>
  tree(async (root) => {
    const content = Buffer.alloc(3_000_000, "x");
    writeFileSync(join(root, "f"), content);
    const { stream, sizeBytes } = readIn(root, "f");
    appendFileSync(join(root, "f"), "more");
    assert.equal(sizeBytes, content.length);
    assert.ok((await buffer(stream)).equals(content));
    writeFileSync(join(root, "empty"), "");
    assert.equal(await text(readIn(root, "empty").stream), "");
    truncateSync(join(root, "f"), 2 ** 40);
    readIn(root, "f").stream.destroy();
  }));

Deno.test("directories and links are made, listed, read and removed", () =>
  tree(async (root) => {
    makeDirectoryIn(root, "dir/sub", nobody, 0o2770);
    makeDirectoryIn(root, "dir/sub", { uid: 0, gid: 0 }, 0o700);
    const info = statIn(root, "dir/sub")!;
    assert.deepEqual([info.type, info.uid, info.gid, info.mode], ["directory", 65534, 65533, 0o2770]);
    makeLinkIn(root, "dir/link", "../../secret", nobody);
    assert.equal(linkTargetIn(root, "dir/link"), "../../secret");
    assert.equal(lstatSync(join(root, "dir/link")).uid, 65534);
    assert.deepEqual(await namesIn(root, "/dir"), ["link", "sub"]);
    assert.deepEqual((await entriesIn(root, "dir")).map(({ name, info }) => [name, info.type]), [
      ["link", "symlink"],
      ["sub", "directory"],
    ]);
    assert.deepEqual(await namesIn(root, ""), ["dir"]);
    assert.equal(statIn(root, "/")!.type, "directory");
    assert.throws(() => removeIn(root, "dir"), /ENOTEMPTY/);
    removeIn(root, "dir/link");
    removeIn(root, "dir/sub");
    removeIn(root, "dir");
    assert.deepEqual(readdirSync(root), []);
    assert.equal(statIn(root, "dir/sub"), undefined);
    assert.throws(() => makeDirectoryIn(root, "no/sub", nobody, 0o755), /ENOENT/);
  }));

Deno.test("no link leads out of the tree, whatever is asked", () =>
  tree(async (root, base) => {
    symlinkSync(join(base, "secret"), join(root, "absolute"));
    symlinkSync("../secret", join(root, "relative"));
    symlinkSync(base, join(root, "up"));
    symlinkSync("/dir", join(root, "inside"));
    for (const path of ["absolute", "relative", "up/secret", "../secret", "dir/../../secret", "/../../secret"]) {
      assert.throws(() => readIn(root, path), /ENOENT/, path);
    }
    for (const path of ["absolute", "relative"]) {
      await assert.rejects(write(root, path, "x"), /it is a symbolic link that leads to nothing/);
    }
    await assert.rejects(write(root, "up/planted", "x"), /ENOENT/);
    assert.throws(() => makeDirectoryIn(root, "up/planted", nobody, 0o755), /ENOENT/);
    assert.throws(() => makeLinkIn(root, "up/planted", "x", nobody), /ENOENT/);
    assert.throws(() => removeIn(root, "up/secret"), /ENOENT/);
    changeIn(root, "up", { uid: 7 });
    await write(root, "inside/f", "by a link");
    assert.equal(await text(readIn(root, "inside/f").stream), "by a link");
    removeIn(root, "up");
    assert.deepEqual(readdirSync(base).sort(), ["root", "secret"]);
    assert.equal(readFileSync(join(base, "secret"), "utf8"), "secret");
    assert.equal(statSync(base).uid, 0, "a link's owner is the link's");
    assert.equal(readlinkSync(join(root, "relative")), "../secret");
  }));

Deno.test("a FIFO or a device is named and never opened", () =>
  tree(async (root) => {
    execFileSync("mkfifo", [join(root, "fifo")]);
    execFileSync("mknod", [join(root, "null"), "c", "1", "3"]);
    for (const path of ["fifo", "null"]) {
      assert.equal(statIn(root, path)!.type, "other");
      assert.throws(() => readIn(root, path), /it is a FIFO, socket or device/);
      await assert.rejects(write(root, path, "x"), /it is a FIFO, socket or device/);
      assert.throws(() => makeDirectoryIn(root, path, nobody, 0o755), /it is a FIFO, socket or device/);
    }
    assert.throws(() => readIn(root, "dir"), /it is a directory/);
    removeIn(root, "fifo");
    assert.equal(existsSync(join(root, "fifo")), false);
  }));
