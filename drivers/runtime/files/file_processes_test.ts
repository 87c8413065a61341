import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { Poller } from "../../host/poll/poll.ts";
import { closeFd } from "../../host/process/process.ts";
import { HangingFuse } from "../../../tests/support/hanging_fuse.ts";
import { FileProcesses, NotAnswered } from "./file_processes.ts";
import { cloneSource, identify } from "./mount_source.ts";

/** Long enough for a process to start on a busy machine. */
const soonMs = 5_000;

/** Our processes whose command line contains a word. */
function startedHere(word: string): number[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      return status.includes(`\nPPid:\t${process.pid}\n`) &&
        readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(word);
    } catch {
      return false; // it has ended
    }
  });
}

Deno.test("one tenant has two processes at most; what hangs is killed, and holds its share until it is gone", async () => {
  const directory = mkdtempSync(join(tmpdir(), "lido-hanging-"));
  const poller = new Poller();
  const processes = new FileProcesses(poller);
  const look = (tenant: string, path: string, timeoutMs = soonMs) =>
    processes.ask(tenant, { do: "look", path }, { timeoutMs }).then(({ answer }) => answer.type);
  try {
    assert.deepEqual(await Promise.all(["/", "/etc/passwd", "/dev/null", "/nosuch"].map((path) => look("a", path))), [
      "directory",
      "file",
      "other",
      undefined,
    ]);
    {
      await using _fuse = await HangingFuse.mount(directory);
      const path = join(directory, "x");
      const [one, two] = [look("a", path), look("a", path)];
      const third = look("a", "/", soonMs / 2);
      assert.equal(await look("b", "/"), "directory");
      await assert.rejects(third, /2 requests before this one still wait for a filesystem that does not answer/);
      for (const hung of [one, two]) await assert.rejects(hung, NotAnswered);
      // The kernel does not end them before the filesystem answers or is gone.
      await assert.rejects(look("a", "/", 10), NotAnswered);
      assert.equal(await look("b", "/"), "directory");
    }
    assert.equal(await look("a", "/"), "directory");
  } finally {
    processes.close();
    await poller.close();
    rmSync(directory, { recursive: true, force: true });
    assert.equal(poller.size, 0);
  }
});

Deno.test("a volume on a filesystem that does not answer holds nobody but who waits for it", async () => {
  const root = mkdtempSync(join(tmpdir(), "lido-hanging-"));
  const poller = new Poller();
  const processes = new FileProcesses(poller);
  const options = { recursive: true, options: [] };
  try {
    mkdirSync(join(root, "local/sub"), { recursive: true });
    const near = await cloneSource(processes, "a", { source: join(root, "local"), subPath: "sub" }, options);
    closeFd(near.tree);
    assert.deepEqual(startedHere("file_server_main"), []);
    mkdirSync(join(root, "pool"));
    {
      await using fuse = await HangingFuse.mount(join(root, "pool"));
      using _limit = fuse.endAfter(soonMs / 1000);
      const volume = { source: join(root, "pool/custom/v") };
      const started = performance.now();
      const clones = [volume, { ...volume, subPath: "x" }].map((one) => cloneSource(processes, "a", one, options));
      const refusals = clones.map((clone) => assert.rejects(clone, /Cannot use source path/));
      await assert.rejects(identify(processes, "b", volume, 500), NotAnswered);
      assert.ok(performance.now() - started < soonMs, "the test itself was held");
      await fuse[Symbol.asyncDispose]();
      await Promise.all(refusals);
    }
  } finally {
    processes.close();
    await poller.close();
    rmSync(root, { recursive: true, force: true });
  }
});

Deno.test("a process that somebody kills is replaced; a descriptor comes back", async () => {
  const poller = new Poller();
  const processes = new FileProcesses(poller);
  try {
    await processes.ask("a", { do: "look", path: "/" });
    const mine = startedHere("file_server_main");
    assert.equal(mine.length, 1);
    process.kill(mine[0]!, "SIGKILL");
    const { answer, fd } = await processes.ask("a", {
      do: "clone",
      source: "/etc",
      foreign: true,
      recursive: false,
      options: [],
    });
    assert.equal(answer.isDirectory, true);
    closeFd(fd!);
    await assert.rejects(
      processes.ask("a", { do: "clone", source: "/nosuch", foreign: true, recursive: false, options: [] }),
      /ENOENT/,
    );
  } finally {
    processes.close();
    await poller.close();
  }
});
