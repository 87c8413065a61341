/** Generated requests from a client with full access and from untrusted clients: each is answered soon and without an internal error, an untrusted
 * client learns and changes nothing, and at the end the daemon is as small as before. A failure prints the seed; $LIDO_SEED runs it again,
 * $LIDO_REQUESTS sets the number (50000 in the suite "requests", with a new seed each time). */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import process from "node:process";
import fc from "fast-check";
import { Daemon, projectRoot } from "../support/daemon.ts";
import { freePort } from "../support/free_port.ts";
import { identity } from "../support/identity.ts";
import { busyboxImage } from "../support/image.ts";
import { RawClient } from "../support/raw.ts";
import {
  type ApiDocument,
  type GeneratedRequest,
  generatedRequests,
  routesOf,
  type Vocabulary,
} from "../support/requests.ts";
import { slowness } from "../support/slowness.ts";
import { encodeFrame, ended, type Endpoint, exchange, type Frame, open, type Reply, upgrade } from "../support/wire.ts";

const count = Number(process.env.LIDO_REQUESTS ?? 200);
/** In a long run, wait until the deadline for an untrusted client's request that does not end. */
const isLong = count > 1000;
/** The short run has a fixed seed: a failure means that something has changed. */
const seed = Number(process.env.LIDO_SEED ?? (isLong ? Math.floor(Math.random() * 2 ** 31) : 1));
/** Threads and descriptors that Bun makes when it first needs them, and keeps: its thread pool, a worker's queues. */
const spareThreads = 2 + availableParallelism(), spareDescriptors = 8;
/** Requests in parallel; more for untrusted clients, whose requests wait for their deadlines. */
const lanes = 8;
/** A stop of an instance, or a request that waits for its locks, takes some seconds. */
const answerMaxMs = 60_000;
/** Part of every description, to find leaks. */
const secret = "canary-5c1e";
const stack = /\n\s+at \S+.*:\d+:\d+|"stack"|\/\$bunfs\/|node:internal/;

const instances = ["c1", "c2"];
const pools = ["fast", "plain"];
const snapshots = ["snap0", "snap1"];
const words = {
  name: ["c2", "c3", "more", "b2", "other", "snap1", "p1"],
  instances,
  containers: instances,
  "{type}": ["data", "more", "default_data"],
  volumes: ["custom", "custom", "container", "image"],
  aliases: ["bb", "b2"],
  images: ["bb"],
  projects: ["default"],
  profiles: ["default", "other"],
  pool: [...pools, "p1"],
  type: ["custom", "custom", "container", "image"],
  ".type": ["", "", "container", "custom", "client", "console"],
  ".source.type": ["image", "none", "copy", "copy", "migration"],
  ".source.source": ["c1", "c2", "c2/snap0"],
  ".source.name": ["data", "data/snap0", ""],
  driver: ["dir", "dir", "btrfs", "lvm", "zfs"],
  snapshot: snapshots,
  restore: [...snapshots, ""],
  alias: ["bb", "b2"],
  target: ["bb", "00", "x"],
  action: ["start", "stop", "restart", "freeze", "unfreeze"],
  backup: ["backup0", "b"],
  file: ["console.log", "lxc.log", "exec_x.stdout"],
  command: ["true", "echo", "cat", "id", "nosuch", "/bin/false"],
  cwd: ["/", "/root", "/nosuch"],
  "user-name": ["root", "nobody"],
  path: [
    "/",
    "/mnt",
    "/data",
    "/etc",
    "/etc/passwd",
    "/dev/null",
    "/proc/self/mem",
    "/sys",
    "/bin",
    "relative",
    "/a/../../b",
    "/new",
  ],
  source: ["data", "more", "/data", "c1"],
  size: ["10MiB", "1GiB", "300MiB", "1"],
  project: ["default"],
  recursion: ["0", "1", "2", "3"],
  detach: ["lazy"],
  filter: [
    "name eq c1",
    "status eq running and name ne (",
    "config.x eq y",
    'not name eq "a',
    "((((",
    "name eq a or name eq b",
  ],
  instance: instances,
  expires_at: ["2030-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "", "9999-12-31T23:59:59Z", "2030-02-31T00:00:00Z"],
  compression_algorithm: ["none", "gzip", "zstd", "xz --foo", "nosuch"],
  content_type: ["filesystem", "block"],
  uuid: ["00000000-0000-0000-0000-000000000000"],
  id: ["00000000-0000-0000-0000-000000000000"],
  fingerprint: ["", "0", "f", "bb"],
  architecture: ["x86_64", ""],
};
const disks: Vocabulary["disks"] = [
  { path: "/", pool: "fast" },
  { path: "/", pool: "plain" },
  { path: "/mnt", pool: "fast", source: "data" },
  { path: "/data", pool: "plain", source: "data" },
  { path: "/data", source: "/data" },
];
const config = {
  "limits.memory": "128MiB",
  "limits.cpu": "1",
  "limits.processes": "200",
  "limits.cpu.allowance": "50%",
  "boot.autostart": "true",
  "security.privileged": "true",
  "security.nesting": "true",
  "security.protection.delete": "true",
  "snapshots.schedule": "@daily",
  "snapshots.pattern": "snap%d",
  "snapshots.expiry": "1d",
  "user.x": "y",
  "environment.A": "b",
  "size": "50MiB",
  "security.shifted": "true",
  "security.unmapped": "true",
  "volume.size": "60MiB",
  "rsync.bwlimit": "1MiB",
};

/** Whether the request is for a public path, in any spelling. */
function isForAll({ line }: GeneratedRequest): boolean {
  const target = /^(?:GET|HEAD) (?:http:\/\/h)?([/\\]\S*)/.exec(line)?.[1];
  if (target === undefined) return false;
  // Decode as the daemon does: escapes that are not text stay as they are.
  return ["/", "/1.0"].includes(
    new URL(`http://h${target}`).pathname.replaceAll(/%[2-7][0-9a-f]/gi, decodeURIComponent),
  );
}

interface Size {
  readonly descriptors: readonly string[];
  readonly threads: number;
  readonly rssMiB: number;
}

function linksOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [`${fd} ${readlinkSync(`/proc/${pid}/fd/${fd}`)}`];
    } catch {
      return []; // closed meanwhile
    }
  });
}

function sizeOf(pid: number): Size {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)![1]);
  return {
    descriptors: linksOf(pid),
    threads: field("Threads"),
    rssMiB: field("VmRSS") / 1024,
  };
}

/** Deletes everything, whatever the requests made. */
async function clear(raw: RawClient): Promise<void> {
  const list = async (path: string): Promise<string[]> => (await raw.ask("GET", path)).body.metadata;
  const change = async (method: string, path: string, body?: unknown) => {
    const answer = await raw.ask(method, path, body);
    if (answer.status !== 202) return answer.status < 300 ? "" : `${method} ${path}: ${answer.body?.error}`;
    const end = await raw.end(answer.body.metadata.id);
    return end.status_code === 200 ? "" : `${method} ${path}: ${end.err}`;
  };
  const must = async (method: string, path: string, body?: unknown) =>
    assert.equal(await change(method, path, body), "");
  const { running = [] } = (await raw.ask("GET", "/1.0/operations")).body.metadata;
  for (const operation of running as string[]) {
    await raw.ask("DELETE", operation); // some operations cannot be cancelled
    await raw.end(operation.split("/").at(-1)!);
  }
  for (const session of await list("/1.0/exec-sessions")) await must("DELETE", session);
  for (const instance of await list("/1.0/instances")) {
    await change("PUT", `${instance}/state`, { action: "unfreeze" });
    await change("PUT", `${instance}/state`, { action: "stop", force: true });
    await change("PATCH", instance, { config: { "security.protection.delete": "false" } });
    const left = await change("DELETE", instance);
    assert.ok(left === "" || left.includes("not found"), left); // an ephemeral instance was deleted by its stop
  }
  await must("PUT", "/1.0/profiles/default", {});
  for (const profile of await list("/1.0/profiles")) {
    if (profile !== "/1.0/profiles/default") await must("DELETE", profile);
  }
  for (const image of await list("/1.0/images")) await must("DELETE", image);
  for (const pool of await list("/1.0/storage-pools")) {
    for (const volume of await list(`${pool}/volumes/custom`)) {
      if (!volume.includes("/snapshots/")) await must("DELETE", volume);
    }
    await must("DELETE", pool);
  }
}

/** Runs `work` for each of `list`, `atOnce` in parallel. */
async function each<T>(
  list: readonly T[],
  atOnce: number,
  work: (one: T, index: number) => Promise<void>,
): Promise<void> {
  const rest = list.entries();
  const lane = async () => {
    for (const [index, one] of rest) await work(one, index);
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
}

const payload = fc.oneof(
  { weight: 3, arbitrary: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)) },
  {
    weight: 5,
    arbitrary: fc.constantFrom(
      ...[
        '{"command":"signal","signal":15}',
        '{"command":"signal","signal":-1}',
        '{"command":"signal","signal":1e99}',
        '{"command":"nosuch"}',
      ],
      ...[
        '{"command":"window-resize","args":{"width":"80","height":"25"}}',
        '{"command":"window-resize","args":{"width":"-1","height":"1e9"}}',
      ],
      ...[
        '{"command":"window-resize","args":null}',
        '{"__proto__":{"command":"signal"}}',
        "null",
        "[]",
        "{",
        "",
        "exit\n",
        "\xff\xfe",
        "\x04",
      ],
      "[".repeat(100_000),
      "x".repeat(70_000),
      "x".repeat(1_100_000),
    ).map((text) => Buffer.from(text, "latin1")),
  },
);
const frame: fc.Arbitrary<Frame> = fc.record({
  fin: fc.oneof({ weight: 4, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
  reserved: fc.oneof({ weight: 20, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(7) }),
  opcode: fc.oneof({ weight: 12, arbitrary: fc.constantFrom(1, 2, 1, 2, 0, 9, 10) }, {
    weight: 1,
    arbitrary: fc.nat(15),
  }),
  isMasked: fc.oneof({ weight: 20, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
  payload,
  length: fc.oneof({ weight: 20, arbitrary: fc.constant(undefined) }, {
    weight: 1,
    arbitrary: fc.constantFrom(0n, 5n, 126n, 65535n, 1n << 31n, 1n << 62n, (1n << 64n) - 1n),
  }),
}).map(({ length, ...rest }) => length === undefined ? rest : { ...rest, length });
const conversation = fc.record({
  kind: fc.constantFrom("exec", "terminal", "console", "events", "detachable"),
  /** The operation's sockets to open, in this order; the others stay unopened. */
  opened: fc.oneof(
    { weight: 15, arbitrary: fc.shuffledSubarray(["0", "1", "2", "control"], { minLength: 4 }) },
    { weight: 1, arbitrary: fc.shuffledSubarray(["0", "1", "2", "control"], { minLength: 1 }) },
  ),
  frames: fc.array(fc.tuple(fc.nat(3), frame), { maxLength: 8 }),
  end: fc.constantFrom("half", "half", "close", "destroy", "cut"),
});

Deno.test({
  name: `${count} generated requests: no fault, no hang, no growth, nothing for strangers (seed ${seed})`,
  sanitizeOps: false, // TLS sockets close in their own time
  sanitizeResources: false,
  fn: async (t) => {
    await using daemon = await Daemon.start();
    const image = await busyboxImage();
    const raw = new RawClient(daemon.directory);
    const document = JSON.parse(readFileSync(join(projectRoot, "openapi.json"), "utf8")) as ApiDocument;
    const { configs } = await daemon.query("/1.0/metadata/configuration") as {
      configs: Record<string, Record<string, { keys: Record<string, unknown>[] }>>;
    };
    const configKeys = Object.values(configs).flatMap((groups) =>
      Object.values(groups).flatMap(({ keys }) => keys.flatMap(Object.keys))
    )
      .filter((key) => !key.startsWith("core."));
    assert.ok(configKeys.length > 50, `${configKeys.length} keys`);
    const local: Endpoint = { socketPath: `${daemon.directory}/unix.socket` };
    const port = await freePort();

    const furnish = async () => {
      await daemon.furnish(image);
      await daemon.ok("storage", "volume", "create", "fast", "data");
      await daemon.ok("storage", "volume", "create", "plain", "data");
      await daemon.ok("storage", "volume", "snapshot", "fast", "data", "snap0");
      await daemon.ok("init", "bb", "c2", "-s", "plain");
      await daemon.ok("snapshot", "c2", "snap0");
      await daemon.ok("launch", "bb", "c1");
      for (
        const path of ["/1.0/instances/c1", "/1.0/storage-pools/fast/volumes/custom/data", "/1.0/profiles/default"]
      ) {
        await daemon.ok("query", "-X", "PATCH", "-d", JSON.stringify({ description: secret }), path);
      }
    };
    const sample = <T>(arbitrary: fc.Arbitrary<T>, much: number, salt: number) =>
      fc.sample(arbitrary, { seed: seed + salt, numRuns: much });
    const show = (request: GeneratedRequest) => `${request.line}\n${request.bytes.toString("latin1").slice(0, 600)}`;
    // Collected, so that one run shows all faults.
    const faults = new Map<string, string>();
    const isClean = () => {
      const all = [...faults];
      faults.clear();
      const shown = all.slice(0, 20).map(([kind, text]) => `${kind}\n${text}`).join("\n\n");
      assert.equal(all.length, 0, `seed ${seed}: ${all.length} kinds of fault\n\n${shown}`);
    };
    let logRead = 0;
    const checkLog = () => {
      const log = readFileSync(`${daemon.directory}.log`);
      const lines = log.subarray(logRead).toString().split("\n").filter((line) => stack.test(line));
      logRead = log.length;
      for (const line of lines) faults.set(`in the log: ${/"error":"([^"]{0,40})/.exec(line)?.[1] ?? line}`, line);
    };
    const check = (endpoint: Endpoint, request: GeneratedRequest, { status, text }: Reply) => {
      // For an untrusted client the daemon handles one request per connection.
      const mustAnswer = request.isWhole && (endpoint === local || !request.isPipelined);
      const told = `${show(request)}\n${text.slice(0, 2000)}`;
      if (mustAnswer && status === 0) faults.set("no answer", told);
      if (/^HTTP\/1\.1 500/m.test(text)) faults.set(`status 500: ${/"error":"([^"]{0,40})/.exec(text)?.[1]}`, told);
      if (stack.test(text)) faults.set("a stack in an answer", told);
    };
    const ask = async (endpoint: Endpoint, request: GeneratedRequest) => {
      try {
        const reply = await exchange(endpoint, request.bytes, !request.isWhole, answerMaxMs);
        check(endpoint, request, reply);
        return reply;
      } catch (error) {
        faults.set(`no end: ${request.line.slice(0, 30)}`, `${show(request)}: ${(error as Error).message}`);
        return { status: 0, text: "" };
      }
    };
    const seen = new Map<number, number>();
    const attack = async (list: readonly GeneratedRequest[]) => {
      await each(list, lanes, async (request) => {
        const { status } = await ask(local, request);
        seen.set(status, (seen.get(status) ?? 0) + 1);
      });
      checkLog();
      assert.equal((await raw.ask("GET", "/1.0")).status, 200, "it answers still");
    };
    /** Deletes everything and waits, with a limit, until the daemon is small enough. */
    const rest = async (isEnough: (size: Size) => boolean = () => true) => {
      await clear(raw);
      const started = performance.now();
      let size = sizeOf(daemon.pid);
      while (!isEnough(size) && performance.now() - started < 30_000 * slowness) {
        await new Promise((resolve) => setTimeout(resolve, 200));
        size = sizeOf(daemon.pid);
      }
      return size;
    };

    await furnish();
    const [{ fingerprint }] = await daemon.query("/1.0/images?recursion=1") as [{ fingerprint: string }];
    const fingerprints = [fingerprint, fingerprint.slice(0, 12)];
    const vocabulary: Vocabulary = {
      words: { ...words, fingerprint: [...words.fingerprint, ...fingerprints], images: fingerprints },
      configKeys,
      config,
      disks,
      scratch: `${daemon.directory}.scratch`,
    };
    const requests = generatedRequests(document, vocabulary);
    const mild = generatedRequests(document, vocabulary, { mild: true });
    await attack(sample(requests, Math.min(300, count / 2), 1));
    const before = await rest();

    await t.step("from who may everything", async () => {
      // Keep connections with half-sent requests open all the while.
      const halves = sample(requests, Math.min(count, 200), 4).map(({ bytes }) => bytes.subarray(0, bytes.length / 2));
      const held = await Promise.all(halves.map(async (bytes) => {
        const socket = await open(local);
        socket.resume().write(bytes);
        return socket;
      }));
      using _held = { [Symbol.dispose]: () => held.forEach((socket) => socket.destroy()) };
      const chunk = 400;
      for (let done = 0; done < count; done += chunk) {
        await furnish();
        const much = Math.min(chunk, count - done);
        const hostile = sample(requests, Math.ceil(much * 3 / 4), 100 + done);
        const others = sample(mild, Math.floor(much / 4), 101 + done);
        await attack(hostile.flatMap((one, index) => [one, ...(index % 3 === 2 ? others.splice(0, 1) : [])]));
        await clear(raw);
      }
      console.log([...seen].sort().map(([status, much]) => `${status}: ${much}`).join(", "));
      for (const status of [200, 202, 400, 404]) assert.ok(seen.get(status)! > count / 200, `too few ${status}`);
      isClean();
    });

    await t.step("websocket frames", async () => {
      await furnish();
      await each(sample(conversation, Math.ceil(count / 15), 2), lanes, async ({ kind, opened, frames, end }) => {
        const post = { command: ["cat"], "wait-for-websocket": true };
        const body = kind === "console"
          ? {}
          : { ...post, interactive: kind === "terminal", detachable: kind === "detachable" };
        let paths = ["/1.0/events"];
        let id = "";
        if (kind !== "events") {
          const answer = await raw.ask("POST", `/1.0/instances/c1/${kind === "console" ? "console" : "exec"}`, body);
          if (answer.status !== 202) return assert.ok(answer.status < 500, JSON.stringify(answer.body)); // the console allows one client
          ({ id } = answer.body.metadata);
          const { fds } = answer.body.metadata.metadata;
          paths = opened.filter((name) => name in fds).map((name) =>
            `/1.0/operations/${id}/websocket?secret=${fds[name]}`
          );
        }
        const sockets = await Promise.all(paths.map((path) => upgrade(local, path)));
        const connected = sockets.filter((socket) => "write" in socket);
        for (const [index, one] of frames) connected[index % connected.length]?.write(encodeFrame(one));
        for (const socket of connected) {
          socket.resume();
          if (end === "half") socket.end();
          else if (end === "close") {
            // End the stream here: an incomplete frame before may have swallowed this close frame.
            socket.end(
              encodeFrame({ fin: true, reserved: 0, opcode: 8, isMasked: true, payload: Buffer.from([3, 232]) }),
            );
          } else if (end === "cut") {
            socket.end(
              encodeFrame({
                fin: false,
                reserved: 0,
                opcode: 2,
                isMasked: true,
                payload: Buffer.alloc(10),
                length: 100n,
              }),
            );
          } else socket.destroy();
        }
        const closed = connected.map((socket) => socket.destroyed ? undefined : ended(socket));
        let timer: ReturnType<typeof setTimeout> | undefined;
        const late = new Promise<string>((resolve) => timer = setTimeout(resolve, answerMaxMs * slowness, "late"));
        const how = JSON.stringify({
          kind,
          opened,
          end,
          frames: frames.map((
            [index, { payload, length, ...rest }],
          ) => [index, { ...rest, length: String(length), payload: payload.toString("latin1").slice(0, 50) }]),
        });
        assert.notEqual(await Promise.race([Promise.all(closed), late]), "late", `not closed: ${how}`);
        clearTimeout(timer);
        if (id !== "") await raw.ask("DELETE", `/1.0/operations/${id}`);
      });
      checkLog();
      isClean();
    });

    await t.step("strangers", async () => {
      await daemon.ok("config", "set", `core.https_address=127.0.0.1:${port}`, "core.trust_password=8e0c6f1d");
      const strangers: Endpoint[] = [{ port }, { port, identity: await identity("stranger") }];
      // A valid request for each route: all but three are refused because of the client.
      await each(routesOf(document), 4 * lanes, async ({ method, path }) => {
        const filled = path.replaceAll(
          /\{(\w+)\}/g,
          (_, name: string) => ({ name: "c1", pool: "fast", type: "custom" })[name] ?? "snap0",
        );
        const line = `${method} ${filled}`;
        const head = `${line} HTTP/1.1\r\nHost: lido\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}`;
        const { status } = await exchange(strangers[1]!, Buffer.from(head), false, answerMaxMs);
        const expected = /^GET \/(1\.0)?$/.test(line) ? 200 : 403;
        if (status !== expected) faults.set(`${status} to a stranger`, line);
      });
      const view = () =>
        Promise.all(
          ["instances", "storage-pools", "images", "profiles", "certificates"].map((noun) =>
            daemon.query(`/1.0/${noun}?recursion=1`)
          ),
        );
      const found = await view();
      const asked = sample(requests, Math.ceil(count / 8), 3).filter(({ isWhole }) => isWhole || isLong);
      await each(asked, 4 * lanes, async (request, index) => {
        const reply = await ask(strangers[index % 2]!, request);
        const isOpen = isForAll(request);
        assert.ok(
          reply.status < 200 || reply.status >= 300 || isOpen,
          `${reply.status} to a stranger's ${show(request)}`,
        );
        assert.ok(
          !reply.text.includes(secret) && !reply.text.includes(daemon.directory),
          `told a stranger: ${show(request)}\n${reply.text}`,
        );
      });
      assert.deepEqual(await view(), found);
      checkLog();
      isClean();
      await daemon.ok("config", "unset", "core.https_address");
      await daemon.ok("config", "unset", "core.trust_password");
    });

    await t.step("and nothing has grown", async () => {
      const after = await rest(({ descriptors, threads }) =>
        descriptors.length <= before.descriptors.length + spareDescriptors && threads <= before.threads + spareThreads
      );
      const links = `before: ${before.descriptors.join(", ")}\nafter: ${after.descriptors.join(", ")}`;
      assert.ok(after.descriptors.length <= before.descriptors.length + spareDescriptors, `descriptors\n${links}`);
      assert.ok(after.threads <= before.threads + spareThreads, `${before.threads} threads, then ${after.threads}`);
      console.log(`${before.rssMiB.toFixed(0)} MiB, then ${after.rssMiB.toFixed(0)}`);
      await daemon.noZombies();
      assert.ok(after.rssMiB <= before.rssMiB + 150, `${before.rssMiB} MiB, then ${after.rssMiB}`);
    });
  },
});
