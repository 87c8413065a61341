import assert from "node:assert/strict";
import { differenceStream, fullStream, streamCommand } from "../../../tests/support/btrfs_stream.ts";
import { streamUuid } from "./stream_format.ts";
import { withOwnNames } from "./stream_names.ts";

const uuid = new Uint8Array(16).fill(7), other = new Uint8Array(16).fill(8), base = new Uint8Array(16).fill(9);
const clone = (source: Uint8Array) => streamCommand(16, [[15, "f"], [20, source], [21, 1n], [22, "g"]]);
const truncate = streamCommand(17, [[15, "f"], [4, 0n]]);

/** Splits the stream in pieces that do not end where commands do. */
async function named(stream: Uint8Array, known?: Uint8Array): Promise<Buffer> {
  const pieces = async function* () {
    for (let at = 0; at < stream.length; at += 11) yield stream.subarray(at, at + 11);
  };
  const made: Uint8Array[] = [];
  for await (const chunk of withOwnNames(pieces(), known)) made.push(chunk);
  return Buffer.concat(made);
}

const own = (stream: Buffer) => Buffer.from(streamUuid(stream)!.replaceAll("-", ""), "hex");

Deno.test("a stream's subvolume gets a UUID that nobody knows, and so do its clones from itself", async () => {
  const [one, two] = [await named(fullStream(uuid, clone(uuid), truncate)), await named(fullStream(uuid))];
  assert.ok(!own(one).equals(uuid) && !own(one).equals(own(two)));
  assert.deepEqual(one, fullStream(own(one), clone(own(one)), truncate), "checksums are right, the rest is as it was");
});

Deno.test("what it is based on is called as the target has it", async () => {
  const made = await named(differenceStream(uuid, other, truncate, clone(other), clone(uuid)), base);
  assert.deepEqual(made, differenceStream(own(made), base, truncate, clone(base), clone(own(made))));
});

Deno.test("it names nothing else", async () => {
  await assert.rejects(named(fullStream(uuid, clone(other))), /clones from another volume/);
  await assert.rejects(named(fullStream(uuid, clone(base)), base), /clones from another volume/);
  await assert.rejects(named(differenceStream(uuid, other, clone(base)), base), /clones from another volume/);
  await assert.rejects(named(differenceStream(uuid, other)), /based on another volume/);
  await assert.rejects(named(fullStream(uuid).subarray(0, 60)), /truncated/);
});
