import assert from "node:assert/strict";
import { Outlet } from "./outlet.ts";

const mib = 1 << 20;
const bytes = (length: number) => new Uint8Array(length).fill(65);

function pair(): { stdout: Outlet; stderr: Outlet } {
  const stdout = new Outlet("stdout"), stderr = new Outlet("stderr");
  stdout.sibling = stderr;
  stderr.sibling = stdout;
  return { stdout, stderr };
}

/** Whether a promise is still pending after a turn of the event loop. */
async function waits(promise: Promise<void> | void): Promise<boolean> {
  const turn = new Promise<string>((resolve) => setTimeout(resolve, 0, "turn"));
  return promise !== undefined && await Promise.race([promise, turn]) === "turn";
}

const length = async (outlet: Outlet) => (await new Response(outlet.stream).arrayBuffer()).byteLength;

Deno.test("one stream is read to its end while the other has some data, and then that one", async () => {
  const { stdout, stderr } = pair();
  const text = new Response(stdout.stream).text();
  assert.equal(stderr.sink(bytes(1000)), undefined);
  assert.equal(stderr.sink(bytes(1000)), undefined);
  await stdout.sink(new TextEncoder().encode("out"));
  stdout.end();
  assert.equal(await text, "out");
  stderr.end();
  assert.equal(await length(stderr), 2000);
});

Deno.test("one that is not read at all is kept up to a MiB, then the command waits for a reader", async () => {
  const { stdout } = pair();
  assert.equal(stdout.sink(bytes(mib)), undefined);
  const taken = stdout.sink(bytes(1));
  assert.equal(await waits(taken), true);
  const reading = length(stdout);
  await taken;
  assert.equal(await waits(stdout.sink(bytes(mib))), false);
  stdout.end();
  assert.equal(await reading, 2 * mib + 1);
});

Deno.test("when the other one is read and it is not, what is more than that is lost, and the reader is told", async () => {
  for (const order of ["before", "after"]) {
    const { stdout, stderr } = pair();
    let reading: Promise<number> | undefined;
    if (order === "before") reading = length(stdout);
    await waits(undefined);
    stderr.sink(bytes(mib));
    const taken = stderr.sink(bytes(5)); // the chunk that fills it
    assert.equal(await waits(taken), order === "after");
    reading ??= length(stdout);
    await taken;
    assert.equal(stderr.sink(bytes(7)), undefined);
    await stdout.sink(bytes(3 * mib));
    stdout.end();
    assert.equal(await reading, 3 * mib);
    stderr.end();
    const reader = stderr.stream.getReader();
    assert.equal((await reader.read()).value?.length, mib);
    assert.equal((await reader.read()).value?.length, 5);
    await assert.rejects(reader.read(), /Lost 7 bytes of stderr: nobody read it while the other stream was read/);
  }
});

Deno.test("one that is cancelled takes all, and an error comes after what was there before", async () => {
  const { stdout, stderr } = pair();
  const taken = stderr.sink(bytes(2 * mib));
  assert.equal(await waits(taken), true);
  await stderr.stream.cancel();
  await taken;
  assert.equal(stderr.sink(bytes(2 * mib)), undefined);
  stdout.sink(bytes(3));
  stdout.end({ error: new Error("the connection was lost") });
  stdout.end();
  const reader = stdout.stream.getReader();
  assert.equal((await reader.read()).value?.length, 3);
  await assert.rejects(reader.read(), /the connection was lost/);
});
