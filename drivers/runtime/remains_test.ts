import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withContainer } from "../../tests/support/running_container.ts";
import { removeDirectories } from "../host/files/directory_tree.ts";
import { parseMountInfo } from "../host/mounts/mounts.ts";
import { Poller } from "../host/poll/poll.ts";
import { CrunRuntime } from "./crun.ts";
import { crunPath } from "./crun_tool.ts";
import { removeCgroup } from "./remains.ts";

const log = { info: () => {}, warn: (context: object, message: string) => assert.fail(message, { cause: context }) };

/** A child process, killed at the end of the test if it has not ended. */
class Child implements Disposable {
  readonly pid: number;
  readonly ended: Promise<unknown[]>;
  readonly #process: ChildProcess;

  constructor(file: string, argv: readonly string[], argv0 = file) {
    this.#process = spawn(file, argv, { argv0, stdio: "ignore" });
    this.pid = this.#process.pid!;
    this.ended = once(this.#process, "exit");
  }

  [Symbol.dispose](): void {
    this.#process.kill("SIGKILL");
  }
}

const sleeper = () => new Child("sleep", ["1000"]);

/** @returns How it ended. @throws {Error} After a time in which the runtime has given up. */
async function endOf(child: Child): Promise<unknown[]> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`process ${child.pid} has not ended`)), 10_000);
  return await Promise.race([child.ended, late]).finally(() => clearTimeout(timer));
}

async function withPoller(test: (poller: Poller) => Promise<void>): Promise<void> {
  const poller = new Poller();
  try {
    await test(poller);
    assert.equal(poller.size, 0, "a watch was left behind");
  } finally {
    await poller.close();
  }
}

/** The directory of a runtime that has ended. */
async function withRoot(test: (parts: { root: string; poller: Poller }) => Promise<void>): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), "lido-remains-"));
  try {
    await withPoller((poller) => test({ root: join(base, "run"), poller }));
  } finally {
    rmSync(base, { recursive: true, force: true });
  }
}

const hierarchies = () =>
  parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8")).filter(({ target, type }) =>
    target.startsWith("/sys/fs/cgroup") && (type === "cgroup" || type === "cgroup2")
  ).map(({ target }) => target);

const busy = () => Object.assign(new Error("EBUSY"), { code: "EBUSY" });

Deno.test("a process that ends while it is looked at is no failure, and a cgroup that is busy is removed when it is not", () =>
  withPoller(async (poller) => {
    // A pid above the kernel's limit: no such process exists.
    const lists = [[2 ** 22 + 1], [], []];
    let tries = 0;
    await removeCgroup(poller, {
      stragglers: () => lists.shift() ?? [],
      thaw: () => {},
      remove: () => {
        if (++tries < 3) throw busy();
      },
    });
    assert.equal(tries, 3);
  }));

Deno.test("a process that has left the cgroup since it was listed is not killed", () =>
  withPoller(async (poller) => {
    using child = sleeper();
    const lists = [[child.pid]];
    await removeCgroup(poller, { stragglers: () => lists.shift() ?? [], thaw: () => {}, remove: () => {} });
    process.kill(child.pid, "SIGTERM");
    assert.deepEqual(await endOf(child), [null, "SIGTERM"]);
  }));

Deno.test("a cgroup that stays busy is given up after its time, one that cannot be removed at once", () =>
  withPoller(async (poller) => {
    const cgroup = { stragglers: () => [], thaw: () => {} };
    let tries = 0;
    const remove = () => {
      tries++;
      throw busy();
    };
    await assert.rejects(removeCgroup(poller, { ...cgroup, remove }, { timeoutMs: 50 }), { code: "EBUSY" });
    assert.ok(tries > 1);
    const refuse = () => {
      throw Object.assign(new Error("EPERM"), { code: "EPERM" });
    };
    await assert.rejects(removeCgroup(poller, { ...cgroup, remove: refuse }), { code: "EPERM" });
  }));

Deno.test("the next runtime removes cgroups of which nothing else is left, with processes that are in one hierarchy alone, and frozen", () =>
  withRoot(async ({ root, poller }) => {
    const { name } = cgroupsOf(root);
    await using children = new AsyncDisposableStack();
    const sleepers = hierarchies().map((hierarchy) => {
      const below = join(hierarchy, name, "gone/below");
      mkdirSync(below, { recursive: true });
      // A v1 cpuset has no CPU and no memory node at first.
      for (const file of ["cpuset.cpus", "cpuset.mems"]) {
        for (const path of [join(below, "../.."), join(below, ".."), below].map((each) => join(each, file))) {
          if (existsSync(path)) writeFileSync(path, readFileSync(join(hierarchy, file)));
        }
      }
      const child = sleeper(), state = join(below, "freezer.state");
      children.defer(async () => {
        if (existsSync(state)) writeFileSync(state, "THAWED");
        child[Symbol.dispose]();
        await endOf(child);
        await removeDirectories(join(hierarchy, name));
      });
      writeFileSync(join(below, "cgroup.procs"), String(child.pid));
      if (existsSync(state)) writeFileSync(state, "FROZEN");
      return child;
    });
    assert.ok(sleepers.length > 0);
    await withNext(root, poller, async (next) => {
      assert.deepEqual(await next.strays(), ["gone"]);
      assert.deepEqual(await next.adopt(), []);
      assert.deepEqual(await next.strays(), []);
    });
    for (const child of sleepers) assert.deepEqual(await endOf(child), [null, "SIGKILL"]);
    assert.deepEqual(hierarchies().filter((hierarchy) => existsSync(join(hierarchy, name))), []);
  }));

/** The cgroup name that a runtime of this directory uses. */
function cgroupsOf(root: string): { readonly name: string } {
  return { name: `lido-${createHash("sha256").update(root).digest("hex").slice(0, 8)}` };
}

async function withNext(root: string, poller: Poller, work: (next: CrunRuntime) => Promise<unknown>): Promise<void> {
  const next = new CrunRuntime({ root, poller, log });
  try {
    await work(next);
  } finally {
    await next.close();
  }
}

Deno.test("the next runtime ends the crun that a killed one was waiting for, and no other's", () =>
  withRoot(async ({ root, poller }) => {
    const bundle = join(root, "../bundle");
    mkdirSync(bundle);
    // crun waits until the FIFO, its configuration, is opened for writing.
    execFileSync("mkfifo", [join(bundle, "config.json")]);
    const start = (state: string) => {
      mkdirSync(state, { recursive: true });
      return new Child(crunPath, ["--root", state, "run", "--bundle", bundle, "c1"], "crun");
    };
    using ours = start(join(root, ".crun"));
    using other = start(join(root, "../other"));
    await withNext(root, poller, (next) => next.adopt());
    assert.deepEqual(await endOf(ours), [null, "SIGKILL"]);
    process.kill(other.pid, "SIGTERM");
    assert.deepEqual(await endOf(other), [null, "SIGTERM"]);
  }));

Deno.test("a container that has frozen itself, in a cgroup that it made, can be destroyed", () =>
  withContainer(async ({ runtime, run }) => {
    const freeze = `
      mkdir /tmp/tree
      if mount -t cgroup -o freezer none /tmp/tree; then file=freezer.state value=FROZEN
      else mount -t cgroup2 none /tmp/tree; file=cgroup.freeze value=1; fi
      mkdir /tmp/tree/below && echo 1 > /tmp/tree/below/cgroup.procs && echo $value > /tmp/tree/below/$file`;
    assert.deepEqual(await run(["sh", "-c", freeze]), { status: { code: 0 }, output: "" });
    await runtime.destroy("c1");
    assert.deepEqual(await runtime.strays(), []);
  }));

Deno.test("sockets for terminals that a killed runtime left are removed", () =>
  withRoot(async ({ root, poller }) => {
    const { name } = cgroupsOf(root);
    const path = `/run/${name}-terminal-7`;
    writeFileSync(path, "");
    try {
      await withNext(root, poller, (next) => next.adopt());
      assert.deepEqual(readdirSync("/run").filter((entry) => entry.startsWith(name)), []);
    } finally {
      rmSync(path, { force: true });
    }
  }));
