import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DelayedLinks } from "./delayed_links.ts";
import { cleanPath, type Member, memberOf } from "./member.ts";
import { readTar, type TarEntry } from "./tar_reader.ts";
import { writeTree } from "./tree_stream.ts";

async function* chunks(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function entriesOf(bytes: Uint8Array): Promise<(TarEntry & { data: Buffer })[]> {
  const entries = [];
  for await (const entry of readTar(chunks(bytes, 777))) {
    const parts = [];
    for await (const part of entry.content()) parts.push(part.slice());
    entries.push({ ...entry, data: Buffer.concat(parts) });
  }
  return entries;
}

async function* members(bytes: Uint8Array): AsyncGenerator<Member> {
  const refuse = (why: string): never => assert.fail(why);
  for await (const entry of readTar(chunks(bytes, 777))) yield memberOf(entry, cleanPath(entry.name)!, "", refuse);
}

const formats: readonly (readonly string[])[] = [
  ["--format=v7"],
  ["--format=ustar"],
  ["--format=oldgnu", "--sparse"],
  ["--format=gnu", "--sparse"],
  ["--format=pax"],
  ...["0.0", "0.1", "1.0"].map((version) => ["--format=pax", "--sparse", `--sparse-version=${version}`]),
];
for (const format of formats) {
  Deno.test(`readTar() reads what tar ${format.join(" ")} writes, and writeTree() writes what tar reads`, async () => {
    const work = mkdtempSync(join(tmpdir(), "lido-tar-"));
    using _work = { [Symbol.dispose]: () => rmSync(work, { recursive: true, force: true }) };
    const name = format[0] === "--format=v7" ? "short" : "n".repeat(70);
    const fd = openSync(join(work, "holes"), "w");
    // More parts than fit into the old format's header.
    for (let number = 0; number < 40; number++) writeSync(fd, Buffer.from("data"), 0, 4, number * 65_536);
    closeSync(fd);
    truncateSync(join(work, "holes"), 40 * 65_536);
    writeFileSync(join(work, name), "text");
    const argv = ["-C", work, "-cf", join(work, "archive"), ...format, "holes", name];
    execFileSync("tar", argv);
    const bytes = readFileSync(join(work, "archive"));
    const isSparse = format.includes("--sparse");
    const [holes, file] = await entriesOf(bytes);
    assert.equal(holes!.name, "holes");
    assert.equal(holes!.sizeBytes, 40 * 65_536);
    assert.equal(holes!.sparse?.length, isSparse ? 80 : undefined);
    assert.deepEqual([file!.name, file!.data.toString()], [name, "text"]);
    const written = [];
    for await (const chunk of writeTree(members(bytes))) written.push(chunk);
    const again = Buffer.concat(written);
    writeFileSync(join(work, "again"), again);
    const tar = (what: string, archive: string, ...more: string[]) =>
      execFileSync("tar", [what, join(work, archive), ...more], { maxBuffer: 64 << 20 });
    assert.ok(tar("-xOf", "again", "holes").equals(tar("-xOf", "archive", "holes")));
    assert.match(tar("-tf", "again").toString(), new RegExp(`^holes\n${name}\n$`));
    assert.ok(!isSparse || again.length < 1 << 20, "the holes are still holes");
  });
}

Deno.test("cleanPath() has one way to say each place, and none for those outside", () => {
  const same = ["a/b", "./a/b", "a//b", "a/./b/", "a/b/."];
  for (const path of same) assert.equal(cleanPath(path), "a/b");
  for (const path of ["..", "a/../b", "a/..", "/a", "a\0b", "p".repeat(256), "p/".repeat(2100)]) {
    assert.equal(cleanPath(path), undefined);
  }
  assert.equal(cleanPath("/a", { allowAbsolute: true }), "a");
  assert.equal(cleanPath("/../a", { allowAbsolute: true }), undefined);
  assert.equal(cleanPath("p/".repeat(2048).slice(0, -1)), "p/".repeat(2048).slice(0, -1));
});

Deno.test("DelayedLinks gives the deepest first, and knows what is below a link", () => {
  const links = new DelayedLinks();
  const link = (path: string) => ({ path, target: "t", type: "symlink", xattrs: new Map() }) as unknown as Member;
  for (const path of ["x", "a/b/c", "a/d"]) links.add(link(path));
  assert.deepEqual([...links.all()].map(({ path }) => path), ["a/b/c", "a/d", "x"]);
  assert.deepEqual(["x/y", "x", "a/b", "a/b/c/d", "a"].map((path) => links.isAbove(path)), [
    true,
    false,
    false,
    true,
    false,
  ]);
  links.forget("x");
  assert.equal(links.at("x"), undefined);
  assert.equal(links.isAbove("x/y"), false);
});
