/** The daemon's log and its logging events: one line per operation, causes, host commands at level debug, and never a secret. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { mkdirSync, renameSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Event } from "../../../api/types.ts";
import { Client } from "../../../cli/client/client.ts";
import { events } from "../../../cli/client/events.ts";
import { succeed } from "../../support/command.ts";
import { Daemon, executable } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

type Line = Record<string, unknown> & { readonly msg: string; readonly level: number };

/** Runs `lido monitor`, and waits for its events. */
class Monitor {
  readonly events: Event[] = [];
  readonly #child;
  #look = () => {};

  constructor(daemon: Daemon, ...flags: string[]) {
    this.#child = spawn(executable, ["monitor", "--format", "json", "--type", "logging", ...flags], {
      env: { ...process.env, ...daemon.environment },
      stdio: ["ignore", "pipe", "inherit"],
    });
    createInterface({ input: this.#child.stdout! }).on("line", (line) => {
      this.events.push(JSON.parse(line));
      this.#look();
    });
  }

  /** Waits for an event with this message and context. */
  async until(message: string, context: Record<string, string> = {}): Promise<Event> {
    const found = () =>
      this.events.find(({ metadata }) => {
        const fields = metadata.context as Record<string, string>;
        return metadata.message === message && Object.entries(context).every(([name, value]) => fields[name] === value);
      });
    while (!found()) await new Promise<void>((resolve) => this.#look = resolve);
    return found()!;
  }

  async end(): Promise<void> {
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }
}

Deno.test("the log says what is done, by whom and how it ended, and no secret", async (t) => {
  await using daemon = await Daemon.start();
  const lines = (): Line[] => daemon.log.trim().split("\n").map((line) => JSON.parse(line));
  const last = (msg: string): Line => lines().findLast((line) => line.msg === msg) ?? assert.fail(daemon.log);
  /** Sends a request to the socket and ignores the response. */
  const ask = (method: string, path: string, body?: unknown) =>
    new Promise<void>((resolve, reject) => {
      const asked = request({ method, path, socketPath: `${daemon.directory}/unix.socket` }, (answer) => {
        answer.resume().on("end", resolve).on("error", reject);
      });
      asked.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
    });

  await t.step("one line for each operation and each change", async () => {
    await daemon.furnish(await busyboxImage());
    await daemon.ok("launch", "bb", "c1");
    const { uid, pid, resources, result, ms, level } = last("Starting instance");
    assert.deepEqual([uid, resources, result, level], [0, ["/1.0/instances/c1"], "success", 30]);
    assert.ok(Number(pid) > 1 && Number(ms) >= 1, JSON.stringify({ pid, ms }));
    await daemon.ok("profile", "create", "x");
    assert.deepEqual([last("request").made, last("request").status], ["/1.0/profiles/x", 201]);
    await daemon.ok("profile", "delete", "x");
    assert.deepEqual([last("request").method, last("request").path], ["DELETE", "/1.0/profiles/x"]);
    await daemon.lido(["exec", "c1", "--", "sh", "-c", "exit 7"]);
    assert.deepEqual([last("Executing command").return, last("Executing command").result], [7, "success"]);
    const before = lines().length;
    await daemon.ok("list");
    assert.equal(lines().length, before, "who only looks is not in the log");
  });

  await t.step("a failure has its cause", async () => {
    await daemon.lido(["start", "c1"]);
    const { level, result, error } = last("Starting instance");
    assert.deepEqual([level, result, error], [40, "failure", 'The instance is already running: "c1"']);
    await daemon.lido(["exec", "c1", "--", "nosuch"]);
    const missing = last("Executing command");
    assert.deepEqual([missing.level, missing.return, missing.error], [40, 127, "Command not found"]);
    await daemon.lido(["storage", "create", "none", "dir", "source=/nosuch/path"]);
    assert.match(String(last("request failed").error), /nosuch/);
    await ask("GET", "/1.0/operations/00000000-0000-0000-0000-000000000000/websocket?secret=x");
  });

  await t.step("an answer that breaks off is one line, with its cause; nothing is printed beside the log", async () => {
    const told = async (isIt: (line: Line) => boolean): Promise<Line> => {
      for (const deadline = performance.now() + 10_000; performance.now() < deadline;) {
        const found = lines().filter(isIt);
        if (found.length > 0) return found.length === 1 ? found[0]! : assert.fail(JSON.stringify(found));
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      assert.fail(daemon.log);
    };
    const pools = join(daemon.directory, "storage-pools");
    await daemon.ok("storage", "volume", "create", "plain", "odd");
    const file = join(pools, "plain/custom/default_odd/data");
    await succeed(["mknod", file, "b", "7", "0"]);
    assert.equal(
      (await daemon.lido(["storage", "volume", "export", "plain", "odd", `${daemon.directory}.bad`])).code,
      1,
    );
    const failed = await told(({ error }) => /data.* is a device node/.test(String(error)));
    assert.deepEqual([failed.level, failed.msg, failed.stack], [40, "Exporting custom volume backup", undefined]);

    // A client that disconnects in the middle of a download.
    rmSync(file);
    writeFileSync(file, new Uint8Array(64 * 1024 * 1024).fill(1));
    const volume = "/1.0/storage-pools/plain/volumes/custom/odd";
    const backup = JSON.stringify({ name: "b", compression_algorithm: "none" });
    await daemon.ok("query", "-X", "POST", "--wait", "-d", backup, `${volume}/backups`);
    for (const path of [`${volume}/files?path=/data`, `${volume}/backups/b/export`]) {
      const gone = request({ path, socketPath: `${daemon.directory}/unix.socket` }, (answer) => {
        answer.once("data", () => gone.destroy());
      });
      gone.on("error", () => {}).end();
      await once(gone, "close");
    }
    const givenUp = await told(({ error }) => error === "The download was given up");
    assert.deepEqual([givenUp.level, givenUp.stack], [40, undefined]);

    // An error outside of any operation.
    const [{ fingerprint }] = await daemon.query("/1.0/images?recursion=1") as [{ fingerprint: string }];
    const image = join(daemon.directory, "images", fingerprint);
    renameSync(image, `${image}.away`);
    mkdirSync(image);
    await ask("GET", `/1.0/images/${fingerprint}/export`).catch(() => {});
    rmdirSync(image);
    renameSync(`${image}.away`, image);
    const broken = await told(({ msg }) => msg === "answer broken off");
    assert.deepEqual([broken.level, broken.path, broken.uid], [50, `/1.0/images/${fingerprint}/export`, 0]);
    assert.match(String(broken.error), /^EISDIR/);
    await daemon.ok("storage", "volume", "delete", "plain", "odd");

    // An unexpected error is logged with a stack of source files and lines.
    using database = new DatabaseSync(join(daemon.directory, "lido.db"));
    database.exec("ALTER TABLE images RENAME TO elsewhere");
    await ask("GET", "/1.0/images").catch(() => {});
    database.exec("ALTER TABLE elsewhere RENAME TO images");
    const unexpected = await told(({ error }) => /no such table/.test(String(error)));
    assert.equal(unexpected.level, 50);
    assert.match(String(unexpected.stack), /\n {4}at .*\bserver\/\S+\.ts:\d+:\d+/);
    for (const line of lines()) assert.equal(typeof line.msg, "string");
  });

  await t.step("logging events have every level, lxc and lido show them", async () => {
    const monitor = new Monitor(daemon), quiet = new Monitor(daemon, "--loglevel", "info");
    const lxc = spawn("lxc", ["monitor", "--type=logging", "--pretty"], {
      env: {
        ...process.env,
        ...daemon.environment,
        HOME: `${daemon.directory}.lxc`,
        LXD_CONF: `${daemon.directory}.lxc`,
      },
      stdio: ["ignore", "pipe", "ignore"],
    });
    const seenByLxc = (async () => {
      for await (const line of createInterface({ input: lxc.stdout! })) {
        if (/level=info msg="Executing command".* result=success return=5 uid=0/.test(line)) return line;
      }
    })();
    // A listener is ready when it has seen a command that ran after it was started: repeat the command until all three have.
    const isSeen = Promise.all([
      monitor.until("Executing command", { return: "5" }),
      quiet.until("Executing command", { return: "5" }),
      seenByLxc,
    ]).then(() => true);
    let done = false;
    void isSeen.then(() => done = true);
    while (!done) await daemon.lido(["exec", "c1", "--", "sh", "-c", "exit 5"]);
    await daemon.ok("storage", "volume", "create", "plain", "v");
    await daemon.ok("storage", "volume", "snapshot", "plain", "v");
    const { metadata } = await monitor.until("Creating volume snapshot");
    const tool = monitor.events.find(({ metadata }) =>
      metadata.message === "host command" && /^cp /.test((metadata.context as { argv: string }).argv)
    );
    assert.equal((tool!.metadata.context as { result: string }).result, "0");
    assert.deepEqual([metadata.level, (metadata.context as { result: string }).result], ["info", "success"]);
    assert.ok(monitor.events.some(({ metadata }) => metadata.message === "request" && metadata.level === "debug"));
    assert.ok(quiet.events.every(({ metadata }) => metadata.level !== "debug"));
    assert.doesNotMatch(daemon.log, /host command/);
    // Work that the daemon does by itself has no requestor in the log, even if a request has set its timer.
    const soon = new Date(Date.now() + 1000).toISOString();
    await ask("POST", "/1.0/instances/c1/snapshots", { name: "brief", expires_at: soon });
    const { metadata: { context } } = await monitor.until("Deleting snapshot");
    assert.deepEqual(Object.keys(context as object).filter((key) => /uid|pid|address|certificate/.test(key)), []);
    lxc.kill("SIGKILL");
    await once(lxc, "exit");
    await Promise.all([monitor.end(), quiet.end()]);
    await daemon.fails(["monitor", "--loglevel", "loud"], /Invalid (value|log level) "loud"/);
    const refused = /Invalid event type "foo": lifecycle, logging, operation are allowed/;
    await daemon.fails(["monitor", "--type", "foo"], refused);
    // Deno uses another websocket implementation than Bun.
    const client = new Client({ kind: "unix", socket: join(daemon.directory, "unix.socket") });
    await assert.rejects(events(client, ["foo"]).next(), refused);
  });

  await t.step("no secret is in the log or its events, at any level", async () => {
    await daemon.terminate();
    await using verbose = await Daemon.start({ flags: ["--log-level", "trace"] });
    await verbose.furnish(await busyboxImage());
    await verbose.ok("launch", "bb", "c1");
    const monitor = new Monitor(verbose);
    const secret = (name: string) => `planted-${name}-${"s3cret".repeat(2)}`;
    const over = (method: string, path: string, body?: unknown) =>
      verbose.lido(["query", "-X", method, ...(body === undefined ? [] : ["-d", JSON.stringify(body)]), path]);
    await verbose.ok("config", "set", `core.trust_password=${secret("trust")}`);
    const mistyped = ["config", "set", `core.trust_pasword=${secret("mistyped")}`];
    await verbose.fails(mistyped, /Cannot set "core.trust_pasword" \(unknown key\): .*core\.trust_password/);
    await over("PUT", "/1.0", { config: { "nosuch.key": secret("put") } });
    await over("PATCH", "/1.0/instances/c1", {
      config: { "user.pasword": "", "userpassword": secret("instance-key") },
    });
    await over("POST", "/1.0/profiles", { name: "p", config: { "userpassword": secret("profile-key") } });
    await over("POST", "/1.0/storage-pools/plain/volumes", {
      name: "x",
      type: "custom",
      config: { "userpassword": secret("volume-key") },
    });
    await over("PATCH", "/1.0/storage-pools/plain", { config: { "userpassword": secret("pool-key") } });
    await over("POST", "/1.0/certificates", { type: "client", password: secret("wrong-password") });
    await over("POST", "/1.0/certificates", { type: "client", password: secret("null-name"), name: 5 });
    await verbose.ok(
      "config",
      "set",
      "c1",
      `user.password=${secret("config")}`,
      `environment.TOKEN=${secret("env-key")}`,
    );
    await over("PATCH", "/1.0/instances/c1", { config: { "user.password": [secret("bad-type")] } });
    await over("PATCH", "/1.0/instances/c1", { config: { "user.password": secret("refused"), "no.such.key": "1" } });
    await verbose.ok("storage", "volume", "create", "plain", "v", `user.secret=${secret("volume")}`);
    const environment = ["--env", `TOKEN=${secret("environment")}`];
    await verbose.lido(["exec", "c1", ...environment, "--", "sh", "-c", `cat; echo $TOKEN; : ${secret("argument")}`], {
      input: secret("stdin"),
    });
    await verbose.lido(["exec", "c1", ...environment, "--", "nosuch"]);
    await verbose.lido(["exec", "c1", "--env", `BAD\u0001NAME=${secret("bad-name")}`, "--", "true"]);
    const session = await verbose.ok("exec", "--detach", "c1", ...environment, "--", "sleep", "1000");
    await verbose.ok("query", "-X", "DELETE", `/1.0/exec-sessions/${session}`);
    const pushed = verbose.lido(["storage", "volume", "file", "push", "-", "plain", "v/x"], { input: secret("file") });
    assert.equal((await pushed).code, 0);
    const started = await over("POST", "/1.0/instances/c1/exec", { command: ["true"], "wait-for-websocket": true });
    const { id, metadata } = JSON.parse(started.out);
    const secrets = Object.values(metadata.fds as Record<string, string>);
    assert.equal(secrets.length, 4);
    await over("GET", `/1.0/operations/${id}/websocket?secret=${secrets[0]}`);
    await over("GET", `/1.0/nothing?password=${secret("query")}`);
    await over("DELETE", `/1.0/operations/${id}`);
    await verbose.ok("profile", "create", "the-end");
    await monitor.until("request", { made: "/1.0/profiles/the-end" });
    await monitor.end();
    const told = verbose.log + JSON.stringify(monitor.events);
    for (const planted of ["s3cret", ...secrets]) {
      const at = told.indexOf(planted);
      assert.equal(at, -1, `a secret is told: ${told.slice(at - 300, at + 100)}`);
    }
    assert.ok(told.includes("host command") && told.includes("/1.0/nothing"), "what has the secrets was told of");
  });
});
