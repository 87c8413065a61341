import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { lstatSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Filesystem } from "../../../tests/support/filesystem.ts";
import type { IdMap } from "../id_map.ts";
import { shiftTree } from "./shift_tree.ts";

const mapTo = (host: number): IdMap => {
  const lines = [{ container: 0, host, count: 65536 }];
  return { uid: lines, gid: lines };
};
const btrfs = (...argv: string[]) => execFileSync("btrfs", argv).toString();
const isReadonly = (path: string) => btrfs("property", "get", "-ts", path, "ro").trim() === "ro=true";
const setReadonly = (path: string) => void btrfs("property", "set", "-ts", path, "ro", "true");
const notes = (path: string) =>
  execFileSync("getfattr", ["-h", "-R", "-d", "-m", "trusted.lido", "-P", "--absolute-names", path]).toString();

Deno.test("read-only subvolumes get new owners, and are read-only again, also when the change is aborted or repeated", async () => {
  await using filesystem = await Filesystem.make("btrfs", 256);
  const root = join(filesystem.path, "volume");
  const outer = join(root, "machines/image"), inner = join(outer, "deep/within"), writable = join(root, "writable");
  btrfs("subvolume", "create", root);
  mkdirSync(join(root, "machines"));
  for (const path of [outer, writable]) btrfs("subvolume", "create", path);
  mkdirSync(join(outer, "deep"));
  btrfs("subvolume", "create", inner);
  const files = [outer, inner, writable].map((path) => join(path, "file"));
  for (const file of files) writeFileSync(file, "content\n");
  for (const path of [inner, outer]) setReadonly(path);
  const owners = () => [root, outer, inner, ...files].map((path) => lstatSync(path).uid);
  const check = (owner: number) => {
    assert.deepEqual(new Set(owners()), new Set([owner]));
    assert.deepEqual([outer, inner, writable, root].map(isReadonly), [true, true, false, false]);
    assert.equal(notes(root), "");
  };

  await shiftTree(root, undefined, mapTo(1_000_000));
  check(1_000_000);
  // More entries than are handled without threads.
  for (let directory = 0; directory < 40; directory++) {
    mkdirSync(join(root, `d${directory}`));
    for (let file = 0; file < 30; file++) writeFileSync(join(root, `d${directory}/f${file}`), "");
  }
  execFileSync("chown", ["-R", "1000000:1000000", ...Array.from({ length: 40 }, (_, each) => join(root, `d${each}`))]);
  await shiftTree(root, mapTo(1_000_000), mapTo(2_000_000));
  check(2_000_000);

  // As after a kill: the outer one is writable, and its state is saved.
  const id = btrfs("inspect-internal", "rootid", outer).trim();
  execFileSync("setfattr", ["-n", `trusted.lido.readonly.${id}`, "-v", "0x00", join(root, "machines")]);
  btrfs("property", "set", "-ts", outer, "ro", "false");
  await shiftTree(root, mapTo(2_000_000), mapTo(1_000_000));
  check(1_000_000);

  const given = new AbortController();
  const options = { signal: given.signal, progress: () => given.abort() };
  await assert.rejects(shiftTree(root, mapTo(1_000_000), mapTo(2_000_000), options), /abort/i);
  assert.deepEqual([outer, inner].map(isReadonly), [true, true]);
  await shiftTree(root, mapTo(1_000_000), mapTo(2_000_000));
  check(2_000_000);
});
