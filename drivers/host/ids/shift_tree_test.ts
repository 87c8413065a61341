import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fc from "fast-check";
import {
  chmodSync,
  chownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { IdMap } from "../id_map.ts";
import { isRepeatable, shiftAcl, shiftCapability, translator } from "./id_shift.ts";
import { shiftTree } from "./shift_tree.ts";

const mapTo = (host: number, count = 65536): IdMap => {
  const lines = [{ container: 0, host, count }];
  return { uid: lines, gid: lines };
};
const a = mapTo(1_000_000), b = mapTo(2_000_000);

function withTree(test: (root: string) => Promise<void>): () => Promise<void> {
  return async () => {
    const base = mkdtempSync(join(tmpdir(), "lido-shift-"));
    try {
      mkdirSync(join(base, "tree"));
      await test(join(base, "tree"));
    } finally {
      rmSync(base, { recursive: true });
    }
  };
}

const owner = (path: string): [number, number] => {
  const { uid, gid } = lstatSync(path);
  return [uid, gid];
};
const tool = (...argv: [string, ...string[]]): string => execFileSync(argv[0], argv.slice(1)).toString();

Deno.test(
  "shiftTree() changes owners there and back: links, symlinks, special bits, capabilities, ACLs",
  withTree(async (root) => {
    const at = (path: string) => join(root, path);
    mkdirSync(at("d/e"), { recursive: true });
    writeFileSync(at("d/plain"), "");
    chownSync(at("d/plain"), 1000, 100);
    linkSync(at("d/plain"), at("d/e/link"));
    symlinkSync("/etc/passwd", at("d/out"));
    writeFileSync(at("suid"), "", { mode: 0o755 });
    chmodSync(at("suid"), 0o6755);
    writeFileSync(at("ping"), "", { mode: 0o755 });
    tool("setcap", "cap_net_raw+ep", at("ping"));
    writeFileSync(at("acl"), "");
    tool("setfacl", "-m", "u:1000:rw,g:50:r", at("acl"));
    tool("setfacl", "-d", "-m", "u:7:rwx", at("d"));
    writeFileSync(at("stranger"), "");
    chownSync(at("stranger"), 500_000, 0);
    const passwd = statSync("/etc/passwd");

    assert.deepEqual(await shiftTree(root, undefined, a), { entries: 10, changed: 9 });
    assert.deepEqual(await shiftTree(root, undefined, a), { entries: 10, changed: 0 });
    assert.deepEqual(owner(root), [1_000_000, 1_000_000]);
    assert.deepEqual(owner(at("d/plain")), [1_001_000, 1_000_100]);
    assert.deepEqual(owner(at("d/e/link")), [1_001_000, 1_000_100]);
    assert.deepEqual(owner(at("d/out")), [1_000_000, 1_000_000]);
    assert.deepEqual(owner(at("stranger")), [500_000, 1_000_000]);
    assert.equal(statSync(at("suid")).mode & 0o7777, 0o6755);
    assert.match(tool("getcap", "-n", at("ping")), /cap_net_raw=ep \[rootid=1000000\]/);
    assert.match(tool("getfacl", "-n", "-p", at("acl")), /user:1001000:rw-[^]*group:1000050:r--/);
    assert.match(tool("getfacl", "-n", "-p", at("d")), /default:user:1000007:rwx/);
    assert.equal(statSync("/etc/passwd").uid, passwd.uid);
    assert.equal(statSync("/etc/passwd").ctimeMs, passwd.ctimeMs);

    await shiftTree(root, a, b);
    await shiftTree(root, b, undefined);
    assert.deepEqual(owner(at("d/plain")), [1000, 100]);
    assert.deepEqual(owner(at("suid")), [0, 0]);
    assert.equal(statSync(at("suid")).mode & 0o7777, 0o6755);
    assert.match(tool("getcap", "-n", at("ping")), /cap_net_raw=ep$/m);
    assert.match(tool("getfacl", "-n", "-p", at("acl")), /user:1000:rw-[^]*group:50:r--/);
    assert.equal(tool("getfattr", "-h", "-R", "-d", "-m", "trusted.lido", "-P", root), "");
  }),
);

Deno.test(
  "shiftTree() goes on where it was cut off, also between chown and what it took away",
  withTree(async (root) => {
    const at = (path: string) => join(root, path);
    writeFileSync(at("suid"), "", { mode: 0o755 });
    chmodSync(at("suid"), 0o4755);
    writeFileSync(at("done"), "");
    chownSync(at("done"), 1_000_005, 1_000_005);
    writeFileSync(at("todo"), "");
    chownSync(at("todo"), 5, 5);
    // As after a kill of the daemon: the mode is saved, the owner changed, the bit cleared.
    tool("setfattr", "-n", "trusted.lido.shift", "-v", '{"mode":2541}', at("suid"));
    chownSync(at("suid"), 1_000_000, 1_000_000);
    assert.equal(statSync(at("suid")).mode & 0o7777, 0o755);
    await shiftTree(root, undefined, a);
    await shiftTree(root, undefined, a);
    assert.equal(statSync(at("suid")).mode & 0o7777, 0o4755);
    for (const name of ["done", "todo"]) assert.deepEqual(owner(at(name)), [1_000_005, 1_000_005]);
  }),
);

Deno.test(
  "shiftTree() walks a deep tree with one descriptor, and any name",
  withTree(async (root) => {
    let path = root;
    for (let depth = 0; depth < 60; depth++) mkdirSync(path = join(path, `d${depth}`));
    writeFileSync(join(root, "a\nb \u{1f600}"), "");
    let told = 0;
    assert.equal((await shiftTree(root, undefined, a, { progress: (entries) => told = entries })).entries, 62);
    assert.equal(told, 62);
    assert.deepEqual(owner(path), [1_000_000, 1_000_000]);
  }),
);

Deno.test(
  "shiftTree() hands a large tree to threads: every entry once, links and what chown takes away kept, a failure told",
  withTree(async (root) => {
    const at = (path: string) => join(root, path);
    let entries = 1;
    for (let index = 0; index < 20; index++) {
      mkdirSync(at(`d${index}/e`), { recursive: true });
      for (let file = 0; file < 40; file++) writeFileSync(at(`d${index}/e/f${file}`), "");
      entries += 42;
    }
    // The same files in every directory: two threads visit them at once.
    for (let file = 0; file < 10; file++) {
      writeFileSync(at(`d0/s${file}`), "");
      chmodSync(at(`d0/s${file}`), 0o6755);
      tool("setcap", "cap_net_raw+ep", at(`d0/s${file}`));
      for (let index = 1; index < 20; index++) linkSync(at(`d0/s${file}`), at(`d${index}/s${file}`));
      entries += 20;
    }
    let told = 0;
    const done = await shiftTree(root, undefined, a, { progress: (count) => told = count });
    // Each link of a file is visited, the file is changed once.
    assert.deepEqual(done, { entries, changed: entries - 190 });
    assert.equal(told, entries);
    for (const [from, to, base] of [[a, b, 2_000_000], [b, undefined, 0], [undefined, a, 1_000_000]] as const) {
      await shiftTree(root, from, to);
      for (let file = 0; file < 10; file++) {
        const { mode, uid, nlink } = statSync(at(`d7/s${file}`));
        assert.deepEqual([mode & 0o7777, uid, nlink], [0o6755, base, 20]);
      }
      const capabilities = tool("getcap", "-n", "-r", at("d19")).trim().split("\n");
      assert.equal(capabilities.filter((line) => line.includes("cap_net_raw=ep")).length, 10);
    }
    assert.equal(tool("find", root, "!", "-uid", "1000000"), "");
    assert.equal(tool("getfattr", "-h", "-R", "-d", "-m", "trusted.lido", "-P", root), "");
    tool("chattr", "+i", at("d10/e/f7"));
    await assert.rejects(shiftTree(root, a, undefined), /change an owner: EPERM/).finally(() =>
      tool("chattr", "-i", at("d10/e/f7"))
    );
    await shiftTree(root, a, undefined);
    assert.equal(tool("find", root, "!", "-uid", "0"), "");
  }),
);

Deno.test(
  "shiftTree() refuses a root that is a symlink, and stops when told",
  withTree(async (root) => {
    symlinkSync("/etc", join(root, "trap"));
    await assert.rejects(shiftTree(join(root, "trap"), undefined, a), /ENOTDIR|ELOOP/);
    for (let index = 0; index < 1500; index++) writeFileSync(join(root, `f${index}`), "");
    await assert.rejects(shiftTree(root, undefined, a, { signal: AbortSignal.abort(new Error("enough")) }), /enough/);
  }),
);

Deno.test("translator() is repeatable, and goes back to where it came from", () => {
  fc.assert(fc.property(fc.nat(65535), (id) => {
    const [there, on, back] = [translator(undefined, a.uid), translator(a.uid, b.uid), translator(b.uid, undefined)];
    assert.equal(there(there(id)), there(id));
    assert.equal(on(on(there(id))), on(there(id)));
    assert.equal(back(on(there(id))), id);
    assert.equal(back(back(on(there(id)))), id);
  }));
});

Deno.test("isRepeatable() sees ids that look as if they had been changed, or that have no place", () => {
  assert.ok(isRepeatable(a, undefined));
  assert.ok(isRepeatable(a, a));
  assert.ok(isRepeatable(mapTo(1_000_000, 10), mapTo(1_000_000, 10)));
  // Owner 1000000 of an image, which the map cannot store.
  assert.ok(!isRepeatable(undefined, a));
  assert.ok(!isRepeatable(a, b));
  assert.ok(!isRepeatable(a, mapTo(1_000_001)));
  assert.ok(!isRepeatable(undefined, mapTo(10)));
});

/** A map that stores all ids but one unchanged. */
const allBut = (id: number) => [
  { container: 0, host: 0, count: id },
  { container: id + 1, host: id + 1, count: 4294967294 - id },
];

Deno.test("translator() refuses an owner that the new map has no place for, and leaves what is the host's own", () => {
  const there = translator(undefined, allBut(1000));
  assert.equal(there(999), 999);
  assert.throws(() => there(1000), /^OwnerError: owner 1000 has no place in the new id map$/);
  const on = translator(a.uid, b.uid);
  assert.deepEqual([1_000_005, 5, 70_000].map(on), [2_000_005, 5, 70_000]);
  // Beyond the first map the id was stored unchanged.
  assert.equal(translator(mapTo(1_000_000, 10).uid, b.uid)(1005), 2_001_005);
});

Deno.test(
  "shiftTree() refuses an owner that the new map has no place for, and names the file; a capability's root is changed also where the owner is not",
  withTree(async (root) => {
    const at = (path: string) => join(root, path);
    writeFileSync(at("of another"), "");
    chownSync(at("of another"), 100_000, 0);
    await assert.rejects(
      shiftTree(root, undefined, { uid: allBut(100_000), gid: [] }),
      /Cannot change the owner of "of another": owner 100000 has no place in the new id map/,
    );
    writeFileSync(at("ping"), "", { mode: 0o755 });
    chownSync(at("ping"), 3_000_000, 0);
    tool("setcap", "cap_net_raw+ep", at("ping"));
    await shiftTree(root, { uid: [{ container: 0, host: 0, count: 65536 }], gid: [] }, a);
    assert.equal(owner(at("ping"))[0], 3_000_000);
    assert.match(tool("getcap", "-n", at("ping")), /cap_net_raw=ep \[rootid=1000000\]/);
  }),
);

Deno.test("shiftAcl() and shiftCapability() leave alone what they do not know", () => {
  const double = (id: number) => id * 2;
  assert.equal(shiftAcl(new Uint8Array([1, 0, 0, 0]), double, double), false);
  assert.deepEqual(shiftCapability(new Uint8Array(12), double), new Uint8Array(12));
});
