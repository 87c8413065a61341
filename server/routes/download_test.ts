import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { PassThrough } from "node:stream";
import type { Context } from "hono";
import { download } from "./download.ts";

/** The context of a request over HTTP, and the failures reported for it. */
function request() {
  const failures: unknown[] = [];
  const outgoing = Object.assign(new EventEmitter(), { destroy: () => {} });
  const c = {
    env: { outgoing },
    get: () => (error: unknown) => void failures.push(error),
  } as unknown as Context;
  return { c, failures, outgoing };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

Deno.test("a client that goes away while the source has nothing is no failure, however the source ends then", async () => {
  for (
    const end of [(source: PassThrough) => source.end(), (source: PassThrough) => source.destroy(new Error("gone"))]
  ) {
    const { c, failures } = request();
    const source = new PassThrough();
    const reader = download(c, source, {}).body!.getReader();
    const reading = reader.read();
    await turn(); // lets the stream read its source
    const cancelled = reader.cancel();
    end(source);
    await Promise.all([reading, cancelled]);
    await turn();
    assert.deepEqual(failures, []);
  }
});

Deno.test("a source that fails is told once, and the answer ends", async () => {
  const { c, failures } = request();
  const source = new PassThrough();
  const reader = download(c, source, {}).body!.getReader();
  const reading = reader.read();
  source.destroy(new Error("the disk is gone"));
  assert.equal((await reading).done, true);
  assert.equal(failures.length, 1);
});

Deno.test("a client that leaves before its answer begins releases the source", async () => {
  const { c, failures, outgoing } = request();
  const source = new PassThrough();
  download(c, source, {});
  outgoing.emit("close");
  await turn();
  assert.ok(source.destroyed);
  assert.deepEqual(failures, []);
});
