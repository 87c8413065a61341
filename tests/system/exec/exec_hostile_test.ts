/** Exec with broken and hostile clients and containers: refused with a clear error, and nothing is left: no descriptor, process, cgroup or
 * operation. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { Daemon, executable } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { RawClient } from "../../support/raw.ts";

const message = async (socket: import("ws").WebSocket) => String((await once(socket, "message"))[0]);

Deno.test("exec with bad input and hostile clients leaves nothing", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("launch", "bb", "c1");
  const raw = new RawClient(daemon.directory);
  const init = (await daemon.query("/1.0/instances/c1/state") as { pid: number }).pid;
  const inside = async (...argv: string[]) => {
    const { code, err } = await daemon.lido(["exec", "c1", "--", ...argv]);
    assert.equal(code, 0, err);
  };

  /** Counts of the daemon's and the container's resources between requests. */
  const counts = async () => {
    const operations = (await raw.ask("GET", "/1.0/operations")).body.metadata as Record<string, string[]>;
    const cgroup = cgroupOf(init);
    return {
      descriptors: readdirSync(`/proc/${daemon.pid}/fd`).length,
      children:
        readFileSync(`/proc/${daemon.pid}/task/${daemon.pid}/children`, "utf8").split(" ").filter(Boolean).length,
      threads: readdirSync(`/proc/${daemon.pid}/task`).length,
      members: readFileSync(`${cgroup}/cgroup.procs`, "utf8").trim().split("\n").length,
      running: operations.running?.length ?? 0,
      files: readdirSync(`${daemon.directory}/run/c1`).sort(),
      cgroups: readdirSync(cgroup, { withFileTypes: true }).filter((one) => one.isDirectory()).length,
    };
  };
  await inside("true");
  const before = await counts();
  /** Waits until the counts are as before, at most 8 s: the daemon handles the closing of a socket asynchronously. */
  const asBefore = async () => {
    const { threads: _, ...expected } = before;
    for (let left = 400;; left--) {
      const { threads, ...now } = await counts();
      if (left > 0 && JSON.stringify(now) !== JSON.stringify(expected)) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        continue;
      }
      assert.deepEqual(now, expected);
      assert.ok(threads <= before.threads + 4, `${threads} threads of ${before.threads}`);
      return;
    }
  };

  const post = (body: unknown) => raw.ask("POST", "/1.0/instances/c1/exec", body);
  const cases: readonly (readonly [string, unknown, number, RegExp])[] = [
    ["a body over its limit", { command: ["true"], environment: { A: "x".repeat(1 << 20) } }, 413, /larger than/],
    ["a body that is not JSON", "{", 400, /not JSON/],
    ["no command", {}, 400, /command/],
    ["an empty command", { command: [] }, 400, /Invalid command/],
    ["a command that is no list", { command: "true" }, 400, /"command"/],
    ["NUL in an argument", { command: ["echo", "a\0b"] }, 400, /contains a NUL/],
    ["an argument that is too long", { command: ["echo", "x".repeat(200_000)] }, 400, /131072 bytes/],
    ["an environment name with =", { command: ["true"], environment: { "A=B": "c" } }, 400, /"A=B".*no "="/],
    ["an environment name with NUL", { command: ["true"], environment: { "A\0": "c" } }, 400, /NUL/],
    ["an environment value with NUL", { command: ["true"], environment: { A: "b\0" } }, 400, /"A".*NUL/],
    ["a user below 0", { command: ["true"], user: -1 }, 400, /"user"/],
    ["a user beyond 32 bits", { command: ["true"], user: 4294967296 }, 400, /"user"/],
    ["a window of one side 0", { command: ["true"], interactive: true, width: 0, height: 5 }, 400, /window size 0x5/],
    ["a window of 70000", { command: ["true"], interactive: true, width: 70000, height: 5 }, 400, /70000x5/],
    ["a relative directory", { command: ["true"], cwd: "tmp" }, 400, /working directory "tmp"/],
    ["an unknown user", { command: ["true"], "user-name": "nosuch" }, 400, /User "nosuch" not found/],
  ];
  for (const [name, body, status, text] of cases) {
    await t.step(name, async () => {
      const answer = await post(body);
      assert.equal(answer.status, status, JSON.stringify(answer.body));
      assert.match(answer.body.error, text);
    });
  }

  await t.step("wrong, used and late secrets", async () => {
    const exec = await raw.exec("c1", ["cat"]);
    await assert.rejects(raw.socket(exec.id, "0".repeat(64)), /403/);
    await assert.rejects(raw.socket(exec.id, ""), /400/);
    await assert.rejects(raw.socket("00000000-0000-0000-0000-000000000000", exec.fds["1"]!), /404/);
    const sockets = await raw.sockets(exec);
    await assert.rejects(raw.socket(exec.id, exec.fds["1"]!), /400/);
    const ended = raw.wait(exec.id);
    sockets["0"]!.send("");
    assert.equal((await ended).metadata.return, 0);
    await assert.rejects(raw.socket(exec.id, exec.fds["1"]!), /400/);
  });

  await t.step("what is no control message is answered, and the command goes on", async () => {
    const exec = await raw.exec("c1", ["sh", "-c", "read x; exit 7"], { interactive: true, width: 80, height: 24 });
    const { control, 0: terminal } = await raw.sockets(exec);
    const wrong: readonly (readonly [string | Uint8Array, RegExp])[] = [
      [new Uint8Array([1, 2, 3]), /text is allowed/],
      ["{", /not JSON/],
      ["[]", /window-resize, detach or a signal/],
      ['{"command":"signal","signal":0}', /1 to 64/],
      ['{"command":"signal","signal":65}', /1 to 64/],
      ['{"command":"signal","signal":"9"}', /1 to 64/],
      ['{"command":"signal","signal":-9}', /1 to 64/],
      ['{"command":"window-resize","args":{"width":"0","height":"0"}}', /window size 0x0/],
      ['{"command":"window-resize","args":{"width":"70000","height":"24"}}', /window size 70000x24/],
      ['{"command":"window-resize","args":{"width":"-1","height":"24"}}', /window-resize/],
      ['{"command":"detach"}', /not detachable/],
    ];
    for (const [text, expected] of wrong) {
      const answer = message(control!);
      control!.send(text);
      assert.match(JSON.parse(await answer).error, expected);
    }
    const ended = raw.wait(exec.id);
    terminal!.send(new TextEncoder().encode("\n"));
    assert.equal((await ended).metadata.return, 7);
  });

  await t.step("a message over the limit ends its connection, and with the control's the command", async () => {
    const exec = await raw.exec("c1", ["sleep", "1000"]);
    const { control } = await raw.sockets(exec);
    const ended = raw.wait(exec.id);
    control!.on("error", () => {});
    control!.send("x".repeat(2 << 20));
    assert.equal((await ended).metadata.return, 137);
  });

  await t.step("a client that is killed takes its command with it", async () => {
    for (const flags of [["-T"], ["-t"]]) {
      const child = spawn(executable, ["exec", ...flags, "c1", "--", "sh", "-c", "echo up; exec sleep 1000"], {
        env: { ...process.env, ...daemon.environment },
        stdio: ["pipe", "pipe", "inherit"],
      });
      await once(child.stdout!, "data");
      assert.equal((await counts()).running, 1);
      process.kill(child.pid!, "SIGKILL");
      await asBefore();
    }
  });

  await t.step("an operation is cancelled: the command is killed", async () => {
    const exec = await raw.exec("c1", ["sleep", "1000"]);
    await raw.sockets(exec);
    const ended = raw.wait(exec.id);
    assert.equal((await raw.ask("DELETE", `/1.0/operations/${exec.id}`)).status, 200);
    assert.equal((await ended).status, "Cancelled");
  });

  await t.step("without websockets: recorded to files that are served, and no symlink followed", async () => {
    const command = ["sh", "-c", "echo out; echo err >&2; cat; exit 300"];
    const { body } = await post({ command, "record-output": true });
    const ended = await raw.wait(body.metadata.id);
    assert.deepEqual([ended.status, ended.metadata.return], ["Success", 44]);
    const { 1: stdout, 2: stderr } = ended.metadata.output;
    const read = (path: string) => daemon.ok("query", "--raw", path);
    assert.deepEqual([await read(stdout), await read(stderr)], ["out", "err"]);
    const list = (await raw.ask("GET", "/1.0/instances/c1/logs")).body.metadata as string[];
    assert.ok(list.includes(stdout));
    const file = `${daemon.directory}/logs/c1/${stdout.split("/").at(-1)}`;
    rmSync(file);
    symlinkSync("/etc/passwd", file);
    const link = await raw.ask("GET", stdout);
    assert.deepEqual([link.status, link.body.error], [404, "Log file not found"]);
    assert.equal((await raw.ask("GET", "/1.0/instances/c1/logs/..%2f..%2flido.db")).status, 400);
    assert.equal((await raw.ask("DELETE", stdout)).status, 200);
    assert.equal((await raw.ask("DELETE", stderr)).status, 200);
    assert.match(readFileSync("/etc/passwd", "utf8"), /^root:/);
    const silent = await raw.wait((await post({ command: ["sh", "-c", "kill -9 $$"] })).body.metadata.id);
    assert.deepEqual([silent.status, silent.metadata.return], ["Success", 137]);
    const missing = await raw.wait((await post({ command: ["nosuch"] })).body.metadata.id);
    assert.deepEqual([missing.status, missing.err, missing.metadata.return], ["Failure", "Command not found", 127]);
  });

  await t.step("200 sessions that are opened and never connected, started at once or not", async () => {
    const opened = await Promise.all(
      Array.from({ length: 200 }, (_, index) => raw.exec("c1", ["sleep", "1000"], { eager: index % 2 === 0 })),
    );
    // Use the newest session: on a slow machine the first may have timed out before the last is opened.
    const partly = opened.at(-1)!;
    await raw.socket(partly.id, partly.fds["0"]!);
    const ends = await Promise.all(opened.map(({ id }) => raw.wait(id)));
    assert.deepEqual([...new Set(ends.map(({ err }) => err))], ["Timed out waiting for websockets to connect"]);
  });

  await t.step("accounts of a hostile container", async () => {
    await inside("mv", "/etc/passwd", "/etc/kept");
    const refused = async (pattern: RegExp) => {
      const outcome = await daemon.lido(["exec", "c1", "--user", "user", "--", "true"], { timeoutMs: 10_000 });
      assert.deepEqual([outcome.code, outcome.out], [1, ""]);
      assert.match(outcome.err, pattern);
    };
    await refused(/User "user" not found/);
    await inside("mkfifo", "/etc/passwd");
    await refused(/"\/etc\/passwd": it is not a regular file/);
    await inside("sh", "-c", "rm /etc/passwd; truncate -s 1G /etc/passwd");
    await refused(/"\/etc\/passwd": it has 1073741824 bytes, 1048576 are allowed/);
    await inside("sh", "-c", "rm /etc/passwd; ln -s /dev/zero /etc/passwd");
    await refused(/"\/etc\/passwd": it is not a regular file/);
    await inside("sh", "-c", "rm /etc/passwd; ln -s passwd /etc/passwd");
    await refused(/\/etc\/passwd/);
    await inside("sh", "-c", "rm /etc/passwd; echo user:x:99999999999:5:::/bin/sh > /etc/passwd");
    await refused(/The entry of user "user" in the instance's \/etc\/passwd is damaged/);
    // A symlink is followed, but only within the container's root.
    await inside("sh", "-c", `echo user:x:7:8::/nowhere:/bin/sh > /tmp/p; ln -sf ../../../../../../tmp/p /etc/passwd`);
    const { out } = await daemon.lido(["exec", "c1", "--user", "user", "--", "sh", "-c", "id -u; id -g; pwd"]);
    assert.equal(out, "7\n8\n/\n");
    await inside("mv", "/etc/kept", "/etc/passwd");
  });

  await t.step("a working directory that leads out of the root", async () => {
    const refused = async (cwd: string, pattern: RegExp) => {
      const { code, out, err } = await daemon.lido(["exec", "c1", "--cwd", cwd, "--", "pwd", "-P"]);
      assert.deepEqual([code, out], [126, ""]);
      assert.match(err, pattern);
    };
    await refused("/nosuch", /^Error: Cannot change to directory "\/nosuch": No such file or directory\n$/);
    await refused("/etc/passwd", /Cannot change to directory "\/etc\/passwd": Not a directory/);
    await inside("ln", "-s", `../../../../../..${daemon.directory}`, "/tmp/out");
    await refused("/tmp/out", /Cannot change to directory "\/tmp\/out"/);
    for (let fd = 3; fd < 24; fd++) {
      const { out, code } = await daemon.lido(["exec", "c1", "--cwd", `/proc/self/fd/${fd}`, "--", "ls", "-A"]);
      assert.deepEqual([out, code], ["", 126], `/proc/self/fd/${fd} was a directory`);
    }
    await inside("rm", "/tmp/out");
  });

  await t.step("a stopped and a frozen instance", async () => {
    await daemon.ok("pause", "c1");
    await daemon.fails(["exec", "c1", "--", "true"], /Instance is frozen/);
    await daemon.ok("start", "c1");
    await inside("true");
    await daemon.ok("init", "bb", "c2");
    await daemon.fails(["exec", "c2", "--", "true"], /Instance is not running/);
    await daemon.ok("delete", "c2");
  });

  await t.step("nothing is left of all this", asBefore);
});

/** @returns Cgroup in which the kernel counts a process: its own hierarchy in version 1, the only one in version 2. */
function cgroupOf(pid: number): string {
  const text = readFileSync(`/proc/${pid}/cgroup`, "utf8");
  const own = /:pids:(.*)/.exec(text)?.[1];
  return own === undefined ? `/sys/fs/cgroup${/^0::(.*)/m.exec(text)![1]}` : `/sys/fs/cgroup/pids${own}`;
}
