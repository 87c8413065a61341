import assert from "node:assert/strict";
import { once } from "node:events";
import { PassThrough, Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { limitDownload, limitUpload } from "./stall.ts";

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function* slowly(...chunks: readonly (string | number)[]) {
  for (const chunk of chunks) {
    if (typeof chunk === "number") await pause(chunk);
    else yield chunk;
  }
}

Deno.test("an upload may be slow, and not stand still", async () => {
  assert.equal(await text(limitUpload(Readable.from(slowly("a", 60, "b", 60, "c")), 5_000)), "abc");
  const source = new PassThrough();
  source.write("a");
  await assert.rejects(text(limitUpload(source, 30)), /The upload stood still for 0.03 seconds/);
  assert.equal(source.destroyed, true);
});

Deno.test("an upload whose client goes away fails with an error that is the client's", async () => {
  const source = new PassThrough();
  source.write("a");
  const received = text(limitUpload(source));
  source.destroy(new Error("aborted"));
  await assert.rejects(received, {
    code: "bad_request",
    message: /The connection ended before the request's body did/,
  });
  const failing = new PassThrough();
  failing.destroy(new Error("the disk is at fault"));
  await assert.rejects(text(limitDownload(failing)), /the disk is at fault/);
});

Deno.test("an upload waits for a daemon that is slow", async () => {
  const stream = limitUpload(Readable.from(slowly("a", "b", "c")), 30);
  let got = "";
  for await (const chunk of stream) {
    await pause(60);
    got += chunk;
  }
  assert.equal(got, "abc");
});

Deno.test("a download waits for its source, and not for ever for who takes it", async () => {
  assert.equal(await text(limitDownload(Readable.from(slowly(60, "a", 60, "b")), 30)), "ab");
  for (const takes of [0, 1]) {
    const source = Readable.from(slowly(..."abcdefgh".split("").map((letter) => letter.repeat(1 << 16))));
    const stream = limitDownload(source, 30);
    const failed = once(stream, "error");
    if (takes > 0) await new Promise((resolve) => stream.once("readable", () => resolve(stream.read(1))));
    const [error] = await failed;
    assert.match(error.message, /The download stood still/);
    assert.equal(source.destroyed, true);
  }
});

Deno.test("one that is not taken at all is destroyed with its source", async () => {
  const source = Readable.from(slowly("a"));
  const stream = limitDownload(source, 5_000);
  stream.destroy();
  await once(stream, "close");
  assert.equal(source.destroyed, true);
});

Deno.test("a download that nobody ever reads is closed when its time is over, and no fault of the daemon's", async () => {
  const source = new PassThrough();
  const download = limitDownload(source, 10);
  await new Promise((resolve) => download.once("close", resolve));
  assert.ok(source.destroyed);
});

Deno.test("a source that fails before it is read tells who reads it", async () => {
  const source = new PassThrough();
  const download = limitDownload(source);
  source.destroy(new Error("the disk is gone"));
  await new Promise((resolve) => source.once("close", resolve));
  await assert.rejects(download.toArray(), /the disk is gone/);
});
