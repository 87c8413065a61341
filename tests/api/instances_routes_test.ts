import assert from "node:assert/strict";
import { symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { InstanceExecPost } from "../../api/types.ts";
import type { Poller } from "../../drivers/host/poll/poll.ts";
import type { Context } from "../../server/context.ts";
import { ConsoleService } from "../../server/exec/console.ts";
import { instanceRoutes } from "../../server/routes/instances.ts";
import { makeWorld, type World } from "./instances_support.ts";

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: { type: string; error: string; metadata: never; operation: string };
}

/** Serves the routes of instances alone, and records the calls of `exec`. */
function serve(world: World): {
  ask(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>;
  asked: { name: string; post: InstanceExecPost }[];
} {
  const asked: { name: string; post: InstanceExecPost }[] = [];
  const exec = {
    start: (name: string, post: InstanceExecPost) => {
      asked.push({ name, post });
      world.instances.execTarget(name);
      return world.operations.start({ description: "Executing command", run: async () => {} });
    },
  };
  const consoles = new ConsoleService({
    runtime: world.runtime,
    poller: {} as Poller,
    operations: world.operations,
    events: world.events,
    target: (name) => world.instances.execTarget(name),
    logDirectory: (name) => world.instances.logDirectory(name),
  });
  const app = instanceRoutes({ instances: world.instances, exec, consoles } as unknown as Context);
  return {
    asked,
    ask: async (method, path, body, headers = {}) => {
      const response = await app.request(path, {
        method,
        headers,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      const isJson = response.headers.get("content-type")?.includes("json");
      return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text as never };
    },
  };
}

/** Waits for the response's operation. @returns The operation's error text. */
async function run(world: World, answer: Promise<Answer>): Promise<string> {
  const { status, body } = await answer;
  assert.equal(status, 202, body.error);
  const operation = world.operations.get(body.operation.split("/").at(-1)!);
  await operation.finished;
  return operation.view().err;
}

const image = { source: { type: "image", alias: "bb" } };

Deno.test("an instance's life over HTTP, as lxc asks for it", async () => {
  await using world = await makeWorld();
  const { ask, asked } = serve(world);
  const post = {
    architecture: "",
    config: {},
    devices: null,
    ephemeral: false,
    profiles: null,
    stateful: false,
    name: "c1",
  };
  assert.equal(await run(world, ask("POST", "/1.0/instances", { ...post, ...image, instance_type: "" })), "");
  assert.deepEqual((await ask("GET", "/1.0/instances")).body.metadata, ["/1.0/instances/c1"]);
  assert.deepEqual((await ask("GET", "/1.0/containers")).body.metadata, ["/1.0/containers/c1"]);
  const put = { action: "start", timeout: -1, force: false, stateful: false };
  assert.equal(await run(world, ask("PUT", "/1.0/instances/c1/state", put)), "");
  const full = (await ask("GET", "/1.0/instances?filter=&recursion=2")).body.metadata as {
    status: string;
    snapshots: null;
    state: { processes: number };
  }[];
  assert.equal(full[0]!.status, "Running");
  assert.equal(full[0]!.snapshots, null);
  assert.equal(full[0]!.state.processes, 2);

  const exec = { command: ["true"], environment: { TERM: "xterm" }, "wait-for-websocket": true };
  assert.equal(await run(world, ask("POST", "/1.0/instances/c1/exec", exec)), "");
  assert.equal(asked[0]!.post["wait-for-websocket"], true);

  assert.equal((await ask("DELETE", "/1.0/instances/c1")).body.error, "Instance is running");
  assert.equal(await run(world, ask("PUT", "/1.0/instances", { state: { action: "stop", force: true } })), "");
  assert.equal((await ask("POST", "/1.0/instances/c1/exec", exec)).body.error, "Instance is not running");
  assert.equal(await run(world, ask("POST", "/1.0/instances/c1", { name: "c2" })), "");
  assert.equal(await run(world, ask("DELETE", "/1.0/instances/c2")), "");
  assert.deepEqual((await ask("GET", "/1.0/instances?recursion=1")).body.metadata, []);
});

Deno.test("bad requests get LXD's status and text", async () => {
  await using world = await makeWorld();
  await world.create("c1");
  const { ask } = serve(world);
  const cases: [string, string, unknown, number, RegExp][] = [
    ["GET", "/1.0/instances/no", undefined, 404, /^Instance not found$/],
    ["GET", "/1.0/instances/no/state", undefined, 404, /^Instance not found$/],
    ["DELETE", "/1.0/instances/no", undefined, 404, /^Instance not found$/],
    ["PUT", "/1.0/instances/c1/state", { action: "zork" }, 400, /^Unknown action: 'zork'$/],
    ["PUT", "/1.0/instances", {}, 400, /^Unknown action: ''$/],
    ["POST", "/1.0/instances", { name: "c2", source: { type: "zork" } }, 400, /^Unknown source type zork$/],
    ["POST", "/1.0/instances", { name: "c2" }, 400, /source/],
    ["POST", "/1.0/instances/c1", { name: "bad_" }, 400, /^Invalid instance name: /],
    ["POST", "/1.0/instances/c1", { name: "c1" }, 409, /^Name "c1" already in use$/],
    ["GET", "/1.0/instances?recursion=x", undefined, 400, /Invalid recursion/],
    ["GET", "/1.0/instances/c1/snapshots/no", undefined, 404, /InstanceSnapshot not found$/],
    ["PUT", "/1.0/instances/c1", { restore: "no" }, 404, /^Snapshot c1\/no does not exist$/],
    ["GET", "/1.0/instances/c1/logs/zork", undefined, 400, /^log file name zork not valid$/],
    ["GET", "/1.0/instances/c1/logs/..%2F..%2Flido.db", undefined, 400, /not valid$/],
    ["POST", "/1.0/instances/c1/console", {}, 400, /^Instance is not running$/],
    ["POST", "/1.0/instances/c1/console", { type: "bogus" }, 400, /^Unknown console type "bogus"$/],
    ["POST", "/1.0/instances/c1/console", { type: "vga" }, 400, /^VGA console is only supported by virtual machines$/],
    ["POST", "/1.0/instances/no/console", { type: "console" }, 404, /^Instance not found$/],
  ];
  for (const [method, path, body, status, text] of cases) {
    const answer = await ask(method, path, body);
    assert.equal(answer.status, status, `${method} ${path}: ${answer.body.error}`);
    assert.match(answer.body.error, text);
  }
});

Deno.test("a PUT with an old ETag is refused", async () => {
  await using world = await makeWorld();
  await world.create("c1");
  const { ask } = serve(world);
  const seen = await ask("GET", "/1.0/instances/c1");
  const etag = seen.headers.get("etag")!;
  const settings = seen.body.metadata as Record<string, object>;
  const put = { ...settings, config: { ...settings.config, "user.a": "1" } };
  assert.equal(await run(world, ask("PUT", "/1.0/instances/c1", put, { "if-match": etag })), "");
  const late = await ask("PUT", "/1.0/instances/c1", put, { "if-match": etag });
  assert.equal(late.status, 412);
  assert.match(late.body.error, /^ETag doesn't match: [0-9a-f]{64} vs [0-9a-f]{64}$/);
  assert.equal(await run(world, ask("PATCH", "/1.0/instances/c1", { config: { "user.b": "2" }, devices: null })), "");
  assert.equal(world.instances.get("c1").config["user.a"], "1");
  assert.equal(world.instances.get("c1").description, "");
});

Deno.test("PUT and PATCH of a snapshot change its expiry alone; a key that is absent or null changes nothing", async () => {
  await using world = await makeWorld();
  await world.create("c1");
  const { ask } = serve(world);
  const path = "/1.0/instances/c1/snapshots/s";
  world.database.run(
    `INSERT INTO instance_snapshots (instance_id, name, created_at, config, devices, profiles)
     SELECT id, 's', '2026-01-01T00:00:00.000Z', '{}', '{}', '[]' FROM instances`,
  );
  const expiry = () => world.instances.snapshot("c1", "s").expires_at;
  const early = "2031-01-02T03:04:05.000Z", late = "2032-01-02T03:04:05.000Z", never = "0001-01-01T00:00:00Z";
  for (const method of ["PUT", "PATCH"]) {
    for (
      const [body, then] of [
        [{ expires_at: early }, early],
        [{}, early],
        [{ expires_at: null, description: "no such key" }, early],
        [{ expires_at: late }, late],
        [{ expires_at: never }, never],
        [{ expires_at: late }, late],
        [{ expires_at: "" }, never],
      ] as const
    ) {
      assert.equal(await run(world, ask(method, path, body)), "");
      assert.equal(expiry(), then, `${method} ${JSON.stringify(body)}`);
    }
    const etag = (await ask("GET", path)).headers.get("etag")!;
    assert.equal(await run(world, ask(method, path, { expires_at: early }, { "if-match": etag })), "");
    assert.equal((await ask(method, path, { expires_at: late }, { "if-match": etag })).status, 412);
    assert.equal((await ask(method, `${path}2`, { expires_at: late })).status, 404);
    const bad = await ask(method, path, { expires_at: "tomorrow" });
    assert.deepEqual([bad.status, bad.body.error], [400, 'Invalid expiry date "tomorrow"']);
    assert.equal(expiry(), early);
  }
});

Deno.test("logs are read, and no symlink is followed", async () => {
  await using world = await makeWorld();
  await world.create("c1");
  const { ask } = serve(world);
  const actions: unknown[] = [];
  world.events.subscribe(["lifecycle"], ({ metadata }) => actions.push(metadata.action));
  await run(world, ask("PUT", "/1.0/instances/c1/state", { action: "start" }));
  world.runtime.printed.set("c1", "now\n");
  for (const path of ["console", "logs/console.log", "logs/lxc.log"]) {
    assert.equal((await ask("GET", `/1.0/instances/c1/${path}`)).body, "now\n", "of the running container");
  }
  assert.equal((await ask("DELETE", "/1.0/instances/c1/console")).status, 200);
  assert.equal((await ask("GET", "/1.0/instances/c1/console")).body, "");
  assert.deepEqual(actions.filter((action) => String(action).includes("console")), [
    "instance-console-retrieved",
    "instance-console-reset",
    "instance-console-retrieved",
  ]);
  await run(world, ask("PUT", "/1.0/instances/c1/state", { action: "stop", force: true }));
  const directory = join(world.root, "logs", "c1");
  await writeFile(join(directory, "console.log"), "hello\n");
  await symlink("/etc/passwd", join(directory, "exec_1.stdout"));
  assert.deepEqual((await ask("GET", "/1.0/instances/c1/logs")).body.metadata, [
    "/1.0/instances/c1/logs/console.log",
    "/1.0/instances/c1/logs/exec_1.stdout",
  ]);
  assert.equal((await ask("GET", "/1.0/instances/c1/console")).body, "hello\n");
  assert.equal((await ask("GET", "/1.0/instances/c1/logs/exec_1.stdout")).status, 404);
  assert.equal((await ask("DELETE", "/1.0/instances/c1/console")).status, 200);
  assert.equal((await ask("GET", "/1.0/instances/c1/logs/console.log")).body, "");
  assert.equal((await ask("DELETE", "/1.0/instances/c1/logs/console.log")).status, 400);
});
