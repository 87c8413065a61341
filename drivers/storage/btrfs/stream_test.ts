import assert from "node:assert/strict";
import { StreamGuard, streamUuid } from "./stream.ts";

type Attributes = readonly (readonly [number, string | Uint8Array])[];

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

const begin = Buffer.concat([Buffer.from("btrfs-stream\0\x01\0\0\0", "latin1"), command(1, [[15, "v"], [1, uuid]])]);
const symlink = (path: string, target: string) => command(8, [[15, path], [17, target]]);
const mkdir = (path: string) => command(4, [[15, path]]);
const rename = (path: string, to: string) => command(9, [[15, path], [16, to]]);
const write = (path: string) => command(15, [[15, path], [19, "content"]]);

async function through(...commands: Uint8Array[]): Promise<Uint8Array> {
  const bytes = Buffer.concat([begin, ...commands]);
  // In pieces that fit no command.
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
  const device = Buffer.alloc(8);
  device.writeBigUInt64LE(0o060660n);
  const refused: readonly (readonly [readonly Uint8Array[], RegExp])[] = [
    [[write("../x")], /leads out of the backup/],
    [[write("/etc/x")], /leads out of the backup/],
    [[rename("a", "../b")], /leads out of the backup/],
    [[command(10, [[15, "hard"], [17, "../../etc/shadow"]])], /leads out of the backup/],
    [[symlink("l", "/etc"), write("l/passwd")], /goes through a symbolic link/],
    [[symlink("l", "/etc/passwd"), write("l")], /written through a symbolic link/],
    [[mkdir("d"), symlink("d/l", "/etc"), rename("d", "e"), write("e/l/passwd")], /goes through a symbolic link/],
    [[symlink("o1", "/etc"), rename("o1", "l"), mkdir("l/x")], /goes through a symbolic link/],
    [[command(5, [[15, "sda"], [5, device]])], /is a device node/],
    [[command(16, [[15, "f"], [20, other], [22, "x"]])], /clones from another volume/],
    [[command(1, [[15, "../v"], [1, uuid]])], /the subvolume is called/],
    [[write("f").subarray(0, 12)], /truncated/],
  ];
  for (const [commands, pattern] of refused) await assert.rejects(through(...commands), pattern);
  await assert.rejects(async () => {
    for await (
      const _ of new StreamGuard().check((async function* () {
        yield Buffer.alloc(64, "x");
      })())
    );
  }, /no stream of a btrfs subvolume/);
});

Deno.test("a stream's first command names what was sent", () => {
  assert.equal(streamUuid(begin), "07070707-0707-0707-0707-070707070707");
  assert.equal(streamUuid(begin.subarray(0, 30)), undefined);
});
