/** Archives that are generated, mutated and spliced, in v7, ustar, GNU and pax formats: an accepted archive is unpacked below the target and
 * nowhere else, and the result is what the parser said. A failing case prints its seed; $LIDO_SEED runs it again, $LIDO_ARCHIVES sets the number
 * of runs (20000 in the long run). */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import fc from "fast-check";
import { createHost } from "../../drivers/host/real.ts";
import { cleanPath, type Member, memberOf } from "../../server/archives/member.ts";
import { readTar } from "../../server/archives/tar_reader.ts";
import { TreeCheck } from "../../server/archives/tree_stream.ts";
import { unpackTree } from "../../server/archives/unpack.ts";
import { Canary } from "../support/canary.ts";
import { slowness } from "../support/slowness.ts";

const runs = Number(process.env.LIDO_ARCHIVES ?? 300);
const latin = (text: string) => Buffer.from(text, "latin1");

/** Few names, so that entries collide. */
const part = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom("a", "b", "c", "d") },
  { weight: 2, arbitrary: fc.constantFrom("A", "\xfe", "\xff", "n".repeat(120), "m".repeat(256), " ", "\n", "a b") },
  { weight: 2, arbitrary: fc.constantFrom("", ".") },
  { weight: 1, arbitrary: fc.constant("..") },
);
const path = fc.tuple(fc.constantFrom("", "", "", "./", "/"), fc.array(part, { minLength: 1, maxLength: 4 }))
  .map(([start, parts]) => start + parts.join("/"));
const content = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 1500 }).map((size) => Buffer.alloc(size, "content ")) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes)) },
);
const entry = fc.record({
  format: fc.constantFrom("v7", "ustar", "gnu", "pax"),
  name: path,
  type: fc.constantFrom("0", "0", "0", "\0", "7", "1", "1", "2", "2", "3", "5", "5", "5", "6", "S", "V", "g", "x"),
  target: fc.oneof(path, fc.constantFrom("/etc", "../../..", "a", "b/c")),
  content,
  mode: fc.constantFrom(0o644, 0o755, 0o4755, 0o1777, 0o600, 0o700),
  uid: fc.constantFrom(0, 1000, 3_000_000, 4_294_967_294),
  sizeOff: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 0, 512, -1),
  attribute: fc.constantFrom("", "", "user.a", "trusted.lido.shift"),
  holes: fc.boolean(),
});
type Generated = typeof entry extends fc.Arbitrary<infer One> ? One : never;

function record(key: string, value: Uint8Array | string): Uint8Array {
  const bytes = Buffer.concat([latin(` ${key}=`), Buffer.from(value as string), latin("\n")]);
  let length = bytes.length + 1;
  while (String(length).length + bytes.length !== length) length++;
  return Buffer.concat([latin(String(length)), bytes]);
}

function header(
  fields: { name: string; type: string; size: number; target?: string; mode?: number; uid?: number; magic: string },
) {
  const block = Buffer.alloc(512);
  const octal = (value: number, at: number, width: number) =>
    block.write(value.toString(8).padStart(width - 1, "0"), at);
  latin(fields.name).copy(block, 0, 0, 100);
  octal(fields.mode ?? 0o644, 100, 8);
  octal(Math.min(fields.uid ?? 0, 0o7777777), 108, 8);
  octal(0, 116, 8);
  octal(Math.max(fields.size, 0), 124, 12);
  octal(1_700_000_000, 136, 12);
  block.write(fields.type, 156, "latin1");
  latin(fields.target ?? "").copy(block, 157, 0, 100);
  block.write(fields.magic, 257, "latin1");
  block.fill(" ", 148, 156);
  block.write(block.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0") + "\0 ", 148);
  return block;
}

const padded = (bytes: Uint8Array) => Buffer.concat([bytes, Buffer.alloc((512 - bytes.length % 512) % 512)]);
const magics: Record<string, string> = { v7: "", ustar: "ustar\x0000", gnu: "ustar  \0", pax: "ustar\x0000" };

function build(one: Generated): Uint8Array {
  const magic = magics[one.format]!;
  const isFile = "0\x007".includes(one.type);
  let stored = isFile ? one.content : Buffer.alloc(0);
  const blocks: Uint8Array[] = [];
  const extension = (type: string, bytes: Uint8Array) =>
    blocks.push(header({ name: "././@LongLink", type, size: bytes.length, magic }), padded(bytes));
  if (one.format === "gnu") {
    if (one.name.length > 100) extension("L", latin(`${one.name}\0`));
    if (one.target.length > 100) extension("K", latin(`${one.target}\0`));
  }
  if (one.format === "pax") {
    const records = [record("path", latin(one.name)), record("uid", String(one.uid))];
    if ("12".includes(one.type)) records.push(record("linkpath", latin(one.target)));
    if (one.attribute) records.push(record(`SCHILY.xattr.${one.attribute}`, one.content.subarray(0, 20)));
    if (isFile && one.holes) {
      const map = padded(latin(`2\n4096\n${stored.length}\n${100_000}\n0\n`));
      records.push(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"));
      records.push(record("GNU.sparse.name", latin(one.name)), record("GNU.sparse.realsize", "100000"));
      stored = Buffer.concat([map, stored]);
    }
    extension("x", Buffer.concat(records));
  }
  blocks.push(header({ ...one, size: stored.length + one.sizeOff, magic }), padded(stored));
  return Buffer.concat(blocks);
}

const whole = fc.array(entry, { minLength: 1, maxLength: 8 }).map((entries) => Buffer.concat(entries.map(build)));
/** Positions are fractions of the length. */
const position = fc.double({ min: 0, max: 0.9999, noNaN: true });
const archive = fc.oneof(
  { weight: 6, arbitrary: whole },
  {
    weight: 2,
    arbitrary: fc.tuple(whole, fc.array(fc.tuple(position, fc.nat(255)), { maxLength: 4 })).map(([bytes, changes]) => {
      for (const [at, value] of changes) {
        bytes[Math.floor(at * bytes.length)] = value;
        fixSums(bytes);
      }
      return bytes;
    }),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(whole, whole, position, position).map(([one, other, cut, from]) => {
      const blocks = (of: number, size: number) => Math.floor(of * size / 512) * 512;
      return Buffer.concat([one.subarray(0, blocks(cut, one.length)), other.subarray(blocks(from, other.length))]);
    }),
  },
).map((bytes) => Buffer.concat([bytes, Buffer.alloc(1024)]));

/** Corrects the checksum of every block that looks like a header, so that the parser accepts mutated headers. */
function fixSums(bytes: Buffer): void {
  for (let at = 0; at + 512 <= bytes.length; at += 512) {
    const block = bytes.subarray(at, at + 512);
    if (!/^[0-7]{6}\0 $/.test(block.toString("latin1", 148, 156))) continue;
    block.fill(" ", 148, 156);
    block.write(block.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0") + "\0 ", 148);
  }
}

async function* members(
  bytes: Uint8Array,
  seen: (member: Member, content: Uint8Array) => void,
): AsyncGenerator<Member> {
  const chunks = async function* () {
    for (let at = 0; at < bytes.length; at += 700) yield bytes.subarray(at, at + 700);
  };
  const refuse = (why: string): never => {
    throw new Error(why);
  };
  for await (const one of readTar(chunks())) {
    const path = cleanPath(one.name, { allowAbsolute: true }) ?? refuse("leads out");
    const target = one.type === "link" ? cleanPath(one.linkName, { allowAbsolute: true }) ?? refuse("leads out") : "";
    if (one.type === "link" && target === "") refuse("the top");
    const parts: Uint8Array[] = [];
    const member = memberOf(one, path, target, refuse);
    const whole = {
      ...member,
      content: async function* () {
        for await (const part of member.content()) {
          parts.push(part.slice());
          yield part;
        }
      },
    };
    yield whole;
    seen(member, Buffer.concat(parts));
  }
}

interface Node {
  readonly member: Member;
  readonly content: Buffer;
}

/** The tree that the members make in their order, whatever way they are unpacked. */
class Model {
  readonly nodes = new Map<string, Node>();

  apply(member: Member, data: Uint8Array): void {
    const { path, type } = member;
    if (type === "link") {
      const linked = this.nodes.get(member.target);
      if (linked) this.#set(path, linked.member.type === "symlink" ? { ...linked } : linked);
      return;
    }
    this.#set(path, { member, content: unfolded(member, data) });
  }

  #set(path: string, node: Node): void {
    for (let at = path.lastIndexOf("/"); at > 0; at = path.lastIndexOf("/", at - 1)) {
      const above = path.slice(0, at);
      if (!this.nodes.has(above)) {
        this.nodes.set(above, { member: { ...node.member, type: "directory", mode: -1 }, content: Buffer.alloc(0) });
      }
    }
    this.nodes.set(path, node);
  }
}

function unfolded(member: Member, data: Uint8Array): Buffer {
  if (!member.sparse) return Buffer.from(data);
  const file = Buffer.alloc(member.sizeBytes);
  for (let at = 0, from = 0; at < member.sparse.length; at += 2) {
    file.set(data.subarray(from, from + member.sparse[at + 1]!), member.sparse[at]!);
    from += member.sparse[at + 1]!;
  }
  return file;
}

/** Reads the tree by `find`, which returns names as bytes: Deno's functions take text. */
function listing(target: string): Map<string, string[]> {
  const format = "%P\\0%y\\0%m\\0%U\\0%G\\0%s\\0%i\\0%l\\0";
  const fields = execFileSync("find", [target, "-mindepth", "1", "-printf", format]).toString("latin1").split("\0");
  const found = new Map<string, string[]>();
  for (let at = 0; at + 8 < fields.length; at += 8) found.set(fields[at]!, fields.slice(at + 1, at + 8));
  return found;
}

const letters = { file: "f", directory: "d", symlink: "l", fifo: "p", character: "c", block: "", link: "" };

function compare(target: string, model: Model): void {
  const found = listing(target);
  const expected = [...model.nodes.keys()].filter((path) => path !== "");
  assert.deepEqual([...found.keys()].sort(), expected.sort());
  const inodes = new Map<Node, string>();
  for (const path of expected) {
    const node = model.nodes.get(path)!, { member } = node;
    const [letter, mode, uid, gid, size, inode, link] = found.get(path)!;
    assert.equal(letter, letters[member.type], `the type of ${path}`);
    if (member.mode === -1) continue;
    assert.deepEqual([uid, gid], [String(member.uid), String(member.gid)], `the owner of ${path}`);
    if (member.type === "symlink") assert.equal(link, member.target);
    else assert.equal(parseInt(mode!, 8), member.mode, `the mode of ${path}`);
    if (member.type === "file") {
      assert.equal(size, String(node.content.length), `the size of ${path}`);
      // deno-lint-ignore no-control-regex -- names that are not text cannot be opened here
      if (/^[\x00-\x7f]*$/.test(path)) {
        assert.ok(readFileSync(join(target, path)).equals(node.content), `the content of ${path}`);
      }
    }
    if (member.type === "directory" || member.type === "symlink") continue;
    assert.equal(inodes.get(node) ?? inode, inode, `${path} is a hard link`);
    inodes.set(node, inode!);
  }
}

Deno.test(`${runs} generated archives land as they were parsed, or not at all`, async () => {
  using canary = new Canary();
  const host = createHost();
  const work = mkdtempSync(join(tmpdir(), "lido-archives-"));
  using _work = { [Symbol.dispose]: () => rmSync(work, { recursive: true, force: true }) };
  const target = join(work, "target");
  let accepted = 0, refused = 0;
  const unpack = async (bytes: Uint8Array) => {
    const began = performance.now();
    const check = new TreeCheck();
    try {
      for await (const member of members(bytes, () => {})) check.admit(member);
    } catch { /* the unpacking below will refuse it, too */ }
    const tookMs = performance.now() - began;
    assert.ok(tookMs < 1000 * slowness * Math.max(1, bytes.length / 2 ** 20), `parsed in ${tookMs} ms`);
    mkdirSync(target);
    const model = new Model();
    try {
      await unpackTree(host, members(bytes, (member, data) => model.apply(member, data)), target);
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      refused++;
      return;
    } finally {
      assert.deepEqual(readdirSync(work), ["target"]);
    }
    accepted++;
    compare(target, model);
  };
  const property = fc.asyncProperty(archive, async (bytes) => {
    try {
      await unpack(bytes);
    } finally {
      rmSync(target, { recursive: true, force: true });
    }
  });
  const seed = process.env.LIDO_SEED;
  await fc.assert(property, { numRuns: runs, ...(seed === undefined ? {} : { seed: Number(seed) }) });
  canary.check("generated archives");
  // Otherwise the generator is wrong, and the test tries too little.
  assert.ok(accepted > runs / 20 && refused > runs / 20, `${accepted} were accepted, ${refused} refused`);
});
