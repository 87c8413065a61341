import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { confined, markCommands } from "./command.ts";
import { endLeftTools, markOf } from "./left_tools.ts";
import { Poller } from "../poll/poll.ts";
import { startTicks } from "../process/process.ts";

/** A child process that has written a line; killed at the end of the test if it has not ended. */
class Tool implements AsyncDisposable {
  readonly said: Promise<string>;
  readonly ended: Promise<unknown[]>;
  readonly #process;

  constructor(script: string, environment: Record<string, string>) {
    this.#process = spawn("/bin/sh", ["-c", script], { env: { ...environment, PATH: "/usr/bin:/bin" } });
    this.ended = once(this.#process, "exit");
    this.said = once(this.#process.stdout, "data").then(([text]) => String(text).trim());
  }

  get hasEnded(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.ended;
  }
}

async function withDirectory(test: (directory: string, poller: Poller) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "lido tools-"));
  const poller = new Poller();
  try {
    await test(directory, poller);
    assert.equal(poller.size, 0, "a watch was left behind");
  } finally {
    await poller.close();
    rmSync(directory, { recursive: true });
  }
}

Deno.test("tools that a killed daemon left are ended with what they started, stopped ones too; no other's, and no daemon of theirs", () =>
  withDirectory(async (directory, poller) => {
    const ours = markOf(directory, ["cp"]), others = markOf(`${directory}/other`, ["cp"]);
    await using parent = new Tool("sleep 1000 & echo $!; wait", ours);
    await using stopped = new Tool("echo $$; kill -STOP $$; echo went on", ours);
    await using other = new Tool("echo $$; read x", others);
    await using daemon = new Tool("echo $$; exec setsid --wait sh -c 'read x'", ours);
    const child = Number(await parent.said);
    await Promise.all([stopped.said, other.said, daemon.said]);
    const { found, left } = await endLeftTools(poller, directory);
    assert.deepEqual(left, []);
    assert.ok(found.includes("sleep 1000"), found.join());
    assert.deepEqual(await parent.ended, [null, "SIGKILL"]);
    assert.deepEqual(await stopped.ended, [null, "SIGKILL"]);
    assert.equal(startTicks(child), undefined);
    assert.deepEqual((await endLeftTools(poller, directory)).found, []);
    assert.ok(!daemon.hasEnded && !other.hasEnded);
    assert.deepEqual((await endLeftTools(poller, `${directory}/other`)).found, ["/bin/sh -c echo $$; read x"]);
  }));

Deno.test("tools in a namespace of processes of their own are ended, too, when what made it has ended", () =>
  withDirectory(async (directory, poller) => {
    const script = `unshare --pid --fork sleep 1000 >&2 & parent=$!; child=
      until grep -q ^sleep /proc/$child/cmdline; do child=$(cat /proc/$parent/task/$parent/children); child=\${child% }; done
      kill -9 $parent; echo $child`;
    await using maker = new Tool(script, markOf(directory, ["cp"]));
    const child = Number(await maker.said);
    assert.deepEqual(await maker.ended, [0, null]);
    assert.notEqual(startTicks(child), undefined);
    const { found, left } = await endLeftTools(poller, directory);
    assert.deepEqual(left, []);
    assert.ok(found.includes("sleep 1000"), found.join());
    assert.equal(startTicks(child), undefined);
  }));

Deno.test("tools of LVM are waited for: one that is killed half-way leaves devices suspended", () =>
  withDirectory(async (directory, poller) => {
    await using tool = new Tool("echo $$; sleep 0.3; exit 5", markOf(directory, ["lvcreate", "-n", "v"]));
    await tool.said;
    assert.deepEqual((await endLeftTools(poller, directory)).left, []);
    assert.deepEqual(await tool.ended, [5, null]);
  }));

Deno.test("every tool that is run has the mark once the daemon has said whose they are", () =>
  withDirectory(async (directory) => {
    const marks = async () =>
      (await confined({}).run(["env"])).stdout.split("\n").filter((line) => line.startsWith("LIDO_TOOL="));
    assert.deepEqual(await marks(), []);
    markCommands(directory);
    try {
      assert.deepEqual(
        await marks(),
        Object.entries(markOf(directory, ["env"])).map(([key, value]) => `${key}=${value}`),
      );
    } finally {
      markCommands(undefined);
    }
  }));
