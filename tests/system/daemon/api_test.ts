/** The API for any client: guarantees of the daemon's routes beside their responses. */
import assert from "node:assert/strict";
import { request } from "node:http";
import { join } from "node:path";
import superjson, { type SuperJSONResult } from "superjson";
import { WebSocket } from "ws";
import type { Event, Operation } from "../../../api/types.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly body: Record<string, unknown>;
}

function call(
  daemon: Daemon,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const sent = request({ socketPath: join(daemon.directory, "unix.socket"), method, path, headers }, (reply) => {
    let text = "";
    reply.on("data", (chunk) => text += chunk);
    reply.on("end", () => resolve({ status: reply.statusCode!, headers: reply.headers, body: JSON.parse(text) }));
  });
  sent.on("error", reject);
  sent.end(body === undefined ? undefined : JSON.stringify(body));
  return promise;
}

Deno.test("envelopes, operations, events, ETags, encodings", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());

  await t.step("a PATCH keeps what it does not have, a PUT does not", async () => {
    await daemon.ok("storage", "volume", "create", "plain", "kept");
    await daemon.ok("storage", "volume", "snapshot", "plain", "kept", "s0");
    const volume = "/1.0/storage-pools/plain/volumes/custom/kept";
    for (const path of ["/1.0/storage-pools/plain", volume, `${volume}/snapshots/s0`, "/1.0/profiles/default"]) {
      const description = async () =>
        ((await call(daemon, "GET", path)).body.metadata as { description: string }).description;
      const change = async (method: string, body: object) => {
        const { status, body: answer } = await call(daemon, method, path, body);
        assert.equal(status, 200, `${method} ${path}: ${answer.error}`);
      };
      await change("PATCH", { description: "said once" });
      await change("PATCH", {});
      assert.equal(await description(), "said once", path);
      if (path.includes("profiles")) continue; // a PUT would remove the profile's devices
      await change("PUT", {});
      assert.equal(await description(), "", path);
    }
    await call(daemon, "PATCH", "/1.0/profiles/default", { description: "" });
    await daemon.ok("storage", "volume", "delete", "plain", "kept");
  });

  await t.step("events: the life of an operation, in order, and what it did", async () => {
    const seen: Event[] = [];
    const socket = new WebSocket(`ws+unix:${daemon.directory}/unix.socket:/1.0/events?type=operation,lifecycle`);
    await new Promise((resolve) => socket.once("open", resolve));
    const created = new Promise<void>((resolve) =>
      socket.on("message", (data) => {
        const event = JSON.parse(data.toString()) as Event;
        seen.push(event);
        if (event.type === "operation" && (event.metadata as unknown as Operation).status_code === 200) resolve();
      })
    );
    await daemon.ok("init", "bb", "c1");
    await created;
    socket.close();
    const operations = seen.filter(({ type }) => type === "operation").map((one) =>
      one.metadata as unknown as Operation
    );
    const codes = [...new Set(operations.map(({ status_code }) => status_code))];
    assert.deepEqual(codes, [103, 200]);
    assert.equal(new Set(operations.map(({ id }) => id)).size, 1);
    const lifecycle = seen.filter(({ type }) => type === "lifecycle").map(({ metadata }) =>
      metadata as { action: string }
    );
    assert.ok(lifecycle.some(({ action }) => action === "instance-created"));
  });

  await t.step("an operation is waited for, and kept for a while", async () => {
    const { status, headers, body } = await call(daemon, "PUT", "/1.0/instances/c1/state", { action: "start" });
    assert.deepEqual([status, body.type, body.status_code], [202, "async", 100]);
    assert.equal(headers.location, body.operation);
    const waited = await call(daemon, "GET", `${body.operation}/wait`);
    assert.equal((waited.body.metadata as Operation).status_code, 200);
    assert.equal((await call(daemon, "GET", body.operation as string)).status, 200);
    const id = "00000000-0000-4000-8000-000000000000";
    const unknown = await call(daemon, "GET", `/1.0/operations/${id}`);
    assert.deepEqual([unknown.status, unknown.body.error], [404, `Operation not found: "${id}"`]);
  });

  await t.step("cancelling an exec kills its command; a finished one cannot be cancelled", async () => {
    const { body } = await call(daemon, "POST", "/1.0/instances/c1/exec", { command: ["sleep", "1000"] });
    assert.equal((await call(daemon, "DELETE", body.operation as string)).status, 200);
    const waited = await call(daemon, "GET", `${body.operation}/wait`);
    assert.equal((waited.body.metadata as Operation).status_code, 401);
    assert.equal((await daemon.lido(["exec", "c1", "--", "pidof", "sleep"])).out.trim().split(" ").length, 1);
    const again = await call(daemon, "DELETE", body.operation as string);
    assert.deepEqual([again.status, again.body.error], [400, "This operation can't be cancelled"]);
  });

  await t.step("a change with a stale ETag is refused and changes nothing", async () => {
    for (const path of ["/1.0/profiles/default", "/1.0/instances/c1", "/1.0/storage-pools/fast"]) {
      const before = await call(daemon, "GET", path);
      const etag = before.headers.etag as string;
      assert.match(etag, /^\S+$/);
      const { description: _, ...value } = before.body.metadata as Record<string, unknown>;
      const put = (description: string) => call(daemon, "PUT", path, { ...value, description }, { "if-match": etag });
      const first = await put("first");
      assert.ok(first.status < 300, JSON.stringify(first.body));
      if (first.body.type === "async") await call(daemon, "GET", `${first.body.operation}/wait`);
      const second = await put("second");
      assert.equal(second.status, 412, path);
      const after = await call(daemon, "GET", path);
      assert.equal((after.body.metadata as { description: string }).description, "first");
    }
  });

  await t.step("a native client gets its own encoding, everyone else LXD's JSON", async () => {
    const native = await call(daemon, "GET", "/1.0/instances/c1", undefined, {
      accept: "application/superjson+json",
    });
    assert.equal(native.headers["content-type"], "application/superjson+json");
    const plain = await call(daemon, "GET", "/1.0/instances/c1");
    assert.equal(plain.headers["content-type"], "application/json");
    assert.deepEqual(superjson.deserialize(native.body.metadata as SuperJSONResult), plain.body.metadata);
  });

  await t.step("what is no request is refused with an envelope", async () => {
    for (
      const [method, path, body, status] of [
        ["GET", "/1.0/nothing", undefined, 404],
        ["DELETE", "/1.0", undefined, 404],
        ["POST", "/1.0/storage-pools", { name: "a/b", driver: "btrfs" }, 400],
        ["POST", "/1.0/storage-pools", "no object", 400],
      ] as const
    ) {
      const answer = await call(daemon, method, path, body);
      assert.deepEqual([answer.status, answer.body.type, answer.body.error_code], [status, "error", status], path);
      assert.match(answer.body.error as string, /^[^\n]+$/);
    }
  });
});
