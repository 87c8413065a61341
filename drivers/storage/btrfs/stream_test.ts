import assert from "node:assert/strict";
import { StreamGuard } from "./stream.ts";
import { streamUuid } from "./stream_format.ts";

type Attributes = readonly (readonly [number, string | Uint8Array])[];

/** A name given as its bytes, one for each character. */
const raw = (text: string) => Buffer.from(text, "latin1");
const number = (value: bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
};

const uuid = new Uint8Array(16).fill(7);
const other = new Uint8Array(16).fill(8);

function command(kind: number, attributes: Attributes): Uint8Array {
  const body = Buffer.concat(attributes.map(([type, value]) => {
    const bytes = Buffer.from(value as Uint8Array);
    const head = Buffer.alloc(4);
    head.writeUInt16LE(type, 0);
    head.writeUInt16LE(bytes.length, 2);
    return Buffer.concat([head, bytes]);
  }));
  const head = Buffer.alloc(10);
  head.writeUInt32LE(body.length, 0);
  head.writeUInt16LE(kind, 4);
  return Buffer.concat([head, body]);
}

const prefix = Buffer.from("btrfs-stream\0\x01\0\0\0", "latin1");
const begin = Buffer.concat([prefix, command(1, [[15, "v"], [1, uuid]])]);
const endOfStream = command(21, []);
const node = (path: string, mode: bigint, device: bigint) =>
  command(5, [[15, path], [5, number(mode)], [8, number(device)]]);
const link = (path: string, to: string) => command(10, [[15, path], [17, to]]);
const symlink = (path: string | Uint8Array, target: string) => command(8, [[15, path], [17, target]]);
const mkdir = (path: string) => command(4, [[15, path]]);
const rename = (path: string, to: string) => command(9, [[15, path], [16, to]]);
const unlink = (path: string | Uint8Array) => command(11, [[15, path]]);
const write = (path: string | Uint8Array) => command(15, [[15, path], [19, "content"]]);

async function checked(guard: StreamGuard, ...pieces: Uint8Array[]): Promise<void> {
  for await (
    const _ of guard.check((async function* () {
      yield* pieces;
    })())
  );
}

async function through(...commands: Uint8Array[]): Promise<Uint8Array> {
  const bytes = Buffer.concat([begin, ...commands, endOfStream]);
  // The pieces do not end where commands do.
  const pieces = async function* () {
    for (let at = 0; at < bytes.length; at += 7) yield bytes.subarray(at, at + 7);
  };
  const passed: Uint8Array[] = [];
  for await (const chunk of new StreamGuard().check(pieces())) passed.push(chunk);
  assert.ok(Buffer.concat(passed).equals(bytes), "it comes through as it was");
  return bytes;
}

Deno.test("what a container may have made comes through, links to anywhere among it", async () => {
  await through(symlink("link", "/etc/passwd"), symlink("up", "../../x"), mkdir("d"), rename("d", "e"), write("e/f"));
  await through(command(10, [[15, "hard"], [17, "e/f"]]), command(16, [[15, "f"], [20, uuid], [22, "e/f"]]));
});

Deno.test("what leads out of the volume is refused", async () => {
  const refused: readonly (readonly [readonly Uint8Array[], RegExp])[] = [
    [[write("../x")], /leads out of the backup/],
    [[write("/etc/x")], /leads out of the backup/],
    [[rename("a", "../b")], /leads out of the backup/],
    [[command(10, [[15, "hard"], [17, "../../etc/shadow"]])], /leads out of the backup/],
    [[symlink("l", "/etc"), write("l/passwd")], /goes through a symbolic link/],
    [[symlink("l", "/etc/passwd"), write("l")], /reached through a symbolic link/],
    [[mkdir("d"), symlink("d/l", "/etc"), rename("d", "e"), write("e/l/passwd")], /goes through a symbolic link/],
    [[symlink("o1", "/etc"), rename("o1", "l"), mkdir("l/x")], /goes through a symbolic link/],
    [[node("sda", 0o060660n, 0x800n)], /is a device node/],
    [[node("mem", 0o020660n, 0x101n)], /is a device node/],
    // Above 2^53 a double would round the type's bits.
    [[node("sda", 0x4000_0000_0000_0000n | 0o060660n, 0x800n)], /is a device node/],
    [[symlink("x", "/etc"), write("./x/f")], /leads out of the backup/],
    [[symlink("x", "/etc"), write("x//f")], /leads out of the backup/],
    [[symlink("d/x", "/etc"), write("d//x/f")], /leads out of the backup/],
    [[symlink(raw("\x80"), "/etc"), unlink(raw("\x81")), write(raw("\x80/f"))], /goes through a symbolic link/],
    [[symlink("l", "/etc/passwd"), link("h", "l"), write("h")], /reached through a symbolic link/],
    [[symlink("l", "/etc/shadow"), command(16, [[15, "f"], [20, uuid], [22, "l"]])], /reached through a symbolic link/],
    [[symlink("l", "/etc"), command(16, [[15, "f"], [20, uuid], [22, "l/x"]])], /goes through a symbolic link/],
    [[command(9, [[15, ""], [16, "b"]])], /leads out of the backup/],
    [[command(15, [[15, "a"], [15, "../b"], [19, "x"]])], /an attribute comes twice/],
    [[command(13, [[15, "f"], [13, "trusted.lido.shift"], [14, "{}"]])], /extended attribute "trusted.lido.shift"/],
    [[command(26, [[15, "a"]])], /unknown/],
    [[endOfStream, write("a")], /more than one subvolume/],
    [[command(16, [[15, "f"], [20, other], [22, "x"]])], /clones from another volume/],
    [[command(1, [[15, "v2"], [1, other]])], /more than one subvolume/],
  ];
  for (const [commands, pattern] of refused) await assert.rejects(through(...commands), pattern);
  await assert.rejects(
    checked(new StreamGuard(), prefix, command(1, [[15, "../v"], [1, uuid]])),
    /the subvolume is called/,
  );
  await assert.rejects(checked(new StreamGuard(), begin, write("f").subarray(0, 12)), /truncated/);
  await assert.rejects(checked(new StreamGuard(), begin, write("f")), /truncated/);
  await assert.rejects(async () => {
    for await (
      const _ of new StreamGuard().check((async function* () {
        yield Buffer.alloc(64, "x");
      })())
    );
  }, /no stream of a btrfs subvolume/);
});

Deno.test("a stream is based on the one before it, and checked against that one's links", async () => {
  const full = (id: Uint8Array, ...commands: Uint8Array[]) =>
    [prefix, command(1, [[15, "v"], [1, id]]), ...commands, endOfStream] as const;
  const on = (base: Uint8Array, id: Uint8Array, ...commands: Uint8Array[]) =>
    [prefix, command(2, [[15, "w"], [1, id], [20, base]]), ...commands, endOfStream] as const;
  const third = new Uint8Array(16).fill(9);

  const guard = new StreamGuard();
  await checked(guard, ...full(uuid, symlink("l", "/etc")));
  await checked(guard, ...on(uuid, other, unlink("l"), write("l"), command(16, [[15, "f"], [20, uuid], [22, "f"]])));
  await assert.rejects(
    checked(guard, ...on(other, third, command(16, [[15, "f"], [20, uuid], [22, "l/x"]]))),
    /clones from another volume/,
  );

  const links = new StreamGuard();
  await checked(links, ...full(uuid, symlink("l", "/etc")));
  await assert.rejects(checked(links, ...on(uuid, other, write("l/f"))), /goes through a symbolic link/);

  const parent = new StreamGuard();
  await checked(parent, ...full(uuid, symlink("l", "/etc")));
  await assert.rejects(
    checked(parent, ...on(uuid, other, unlink("l"), command(16, [[15, "f"], [20, uuid], [22, "l/x"]]))),
    /goes through a symbolic link/,
  );

  const elsewhere = new StreamGuard();
  await assert.rejects(checked(elsewhere, ...on(uuid, other)), /based on another volume/);
  await checked(elsewhere, ...full(uuid, symlink("l", "/etc")));
  await assert.rejects(checked(elsewhere, ...full(uuid)), /UUID/);
  await checked(elsewhere, ...full(other));
  await assert.rejects(checked(elsewhere, ...on(uuid, third, write("l/f"))), /based on another volume/);
});

Deno.test("a whiteout of overlayfs comes through", async () => {
  await through(node("gone", 0o020000n, 0n), command(18, [[15, ""], [5, number(0o755n)]]));
});

Deno.test("a stream's first command names what was sent", () => {
  assert.equal(streamUuid(begin), "07070707-0707-0707-0707-070707070707");
  assert.equal(streamUuid(begin.subarray(0, 30)), undefined);
});
