/** Files that never answer: a container's own, and sources on the host. A request for them fails with an error that names them, and no other
 * request waits. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Daemon } from "../support/daemon.ts";
import { HangingFuse } from "../support/hanging_fuse.ts";
import { busyboxImage } from "../support/image.ts";
import { PausingFuse } from "../support/pausing_fuse.ts";
import { SecondClient } from "../support/second_client.ts";
import { slowness } from "../support/slowness.ts";

/** Longer than the daemon's own limit for all work of one request, and short enough to fail by name. */
const limitMs = 40_000;

async function pidOf(daemon: Daemon, name: string): Promise<number> {
  return (await daemon.query(`/1.0/instances/${name}/state`) as { pid: number }).pid;
}

async function within<T>(seconds: number, work: Promise<T>, what: string): Promise<T> {
  const started = performance.now();
  const result = await work;
  const took = performance.now() - started;
  assert.ok(took < seconds * 1000 * slowness, `${what} took ${took} ms beside a filesystem that does not answer`);
  return result;
}

/** Pids of the daemon's file processes. */
function fileProcesses(daemon: Daemon): number[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      const parent = Number(/^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
      return parent === daemon.pid && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("--files");
    } catch {
      return false;
    }
  });
}

async function until(what: string, is: () => boolean): Promise<void> {
  const limit = performance.now() + 10_000 * slowness;
  while (!is()) {
    if (performance.now() > limit) assert.fail(`it did not come about that ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const bob = "echo bob:x:1234:1234::/:/bin/sh >> /etc/passwd";
const asBob = (name: string) => ["exec", name, "--user", "bob", "--", "id", "-un"];

/** Takes a lease on a file, as a process of a container could. */
async function lease(path: string): Promise<ChildProcess> {
  const script = `import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("leased", flush=True)
sys.stdin.read()`;
  const holder = spawn("python3", ["-c", script, path], { stdio: ["pipe", "pipe", "inherit"] });
  await Promise.race([once(holder.stdout!, "data"), once(holder, "exit")]);
  assert.equal(holder.exitCode, null);
  return holder;
}

Deno.test("files that never answer keep nobody else from being served", async (t) => {
  const places = mkdtempSync(join(tmpdir(), "lido-sources-"));
  using _places = { [Symbol.dispose]: () => rmSync(places, { recursive: true, force: true }) };
  const lxcfs = join(places, "lxcfs");
  mkdirSync(lxcfs);
  await using daemon = await Daemon.start({ flags: ["--lxcfs", lxcfs] });
  await daemon.furnish(await busyboxImage());
  for (const name of ["c1", "c2"]) await daemon.ok("launch", "bb", name);
  await daemon.ok("launch", "bb", "privileged", "-c", "security.privileged=true");
  for (const name of ["c1", "c2", "privileged"]) await daemon.ok("exec", name, "--", "sh", "-c", bob);
  await daemon.ok("storage", "volume", "create", "fast", "v", "security.shifted=true");
  await daemon.ok("storage", "volume", "create", "fast", "w", "security.shifted=true");

  // A lease blocks the execve of a command for longer than the daemon waits, while the rest of this test runs.
  await daemon.ok("launch", "bb", "c7");
  const leased = join(daemon.directory, "storage-pools/fast/containers/c7/rootfs/bin/leased");
  copyFileSync(realpathSync(join(leased, "../busybox")), leased);
  const holding = await lease(leased);
  const held = daemon.lido(["exec", "c7", "--", "/bin/leased", "true"], { timeoutMs: limitMs });

  await t.step("a file of the kernel's over /etc/passwd is not read", async () => {
    await using _second = new SecondClient(daemon.directory);
    await daemon.ok("exec", "c1", "--", "mount", "--bind", "/proc/kmsg", "/etc/passwd");
    await daemon.fails(asBob("c1"), /Cannot read "\/etc\/passwd": it is a file of the kernel's \(proc\)/, {
      timeoutMs: limitMs,
    });
    await daemon.ok("exec", "c1", "--", "umount", "/etc/passwd");
    assert.equal(await daemon.ok(...asBob("c1")), "bob");
  });

  await t.step("what a container mounts itself is read all the same", async () => {
    const script = "cp -a /etc /copy; mount -t tmpfs none /etc; cp -a /copy/. /etc";
    await daemon.ok("exec", "c1", "--", "sh", "-c", script);
    assert.equal(await daemon.ok(...asBob("c1")), "bob");
    await daemon.ok("exec", "c1", "--", "umount", "/etc");
  });

  await t.step("a FUSE that never answers, over a container's /etc", async () => {
    await using _second = new SecondClient(daemon.directory);
    {
      await using _fuse = await HangingFuse.mount("/etc", await pidOf(daemon, "privileged"));
      const attacks = [1, 2, 3].map(() =>
        daemon.fails(asBob("privileged"), /did not answer within 10 s|2 requests before this one still wait/, {
          timeoutMs: limitMs,
        })
      );
      const plug = ["config", "device", "add", "privileged", "v", "disk", "pool=fast", "source=v", "path=/etc/a/b"];
      attacks.push(
        daemon.fails(
          plug,
          /Cannot mount at "\/etc\/a\/b" in the instance: a filesystem of the instance does not answer/,
          {
            timeoutMs: limitMs,
          },
        ),
      );
      await within(5, daemon.ok(...asBob("c2")), "a command in another container");
      const other = ["config", "device", "add", "c2", "w", "disk", "pool=fast", "source=w", "path=/mnt/w"];
      await within(5, daemon.ok(...other), "an attach to another");
      await within(5, daemon.ok("config", "device", "remove", "c2", "w"), "a detach from another");
      await Promise.all(attacks);
      // The daemon killed these processes, and none of them stays blocked in the filesystem.
      await until("the killed processes end", () => fileProcesses(daemon).length <= 1);
    }
    assert.equal(await daemon.ok(...asBob("privileged")), "bob");
    assert.ok(!(await daemon.ok("exec", "privileged", "--", "cat", "/proc/mounts")).includes("/etc/a/b"));
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  });

  await t.step("sources of disks that never answer", async () => {
    await using _second = new SecondClient(daemon.directory);
    mkdirSync(join(places, "a/b"), { recursive: true });
    const source = `source=${places}/a/b`;
    for (const name of ["c3", "c4"]) {
      await daemon.ok("init", "bb", name);
      await daemon.ok("config", "device", "add", name, "d", "disk", source, "path=/mnt/d");
    }
    await daemon.ok("config", "device", "add", "c2", "d", "disk", source, "path=/mnt/d");
    {
      await using _fuse = await HangingFuse.mount(join(places, "a"));
      const refusal = new RegExp(`Cannot use source path "${places}/a/b": it did not answer within 10 s`);
      const attacks = ["c3", "c4"].map((name) => daemon.fails(["start", name], refusal, { timeoutMs: limitMs }));
      attacks.push(
        daemon.fails(["config", "device", "add", "c1", "d", "disk", source, "path=/mnt/d"], refusal, {
          timeoutMs: limitMs,
        }),
      );
      // All of these need the daemon's threads for files.
      const file = join(places, "note");
      await daemon.ok("exec", "c2", "--", "true");
      const pushed = daemon.lido(["storage", "volume", "file", "push", "-", "fast", "v/note"], { input: "hello" });
      assert.equal((await within(5, pushed, "a push into a volume")).code, 0);
      await within(5, daemon.ok("storage", "volume", "file", "pull", "fast", "v/note", file), "a pull from a volume");
      await within(10, daemon.ok("launch", "bb", "c5"), "a start of another container");
      // The hanging source cannot be asked which of the mounts is its own.
      await within(15, daemon.ok("config", "device", "remove", "c2", "d"), "a detach");
      await Promise.all(attacks);
    }
    await daemon.ok("start", "c3");
    assert.match(await daemon.ok("exec", "c3", "--", "cat", "/proc/mounts"), / \/mnt\/d /);
  });

  await t.step("sources of new pools that never answer", async () => {
    await using _second = new SecondClient(daemon.directory);
    const source = join(places, "pool");
    mkdirSync(source);
    {
      await using _fuse = await HangingFuse.mount(source);
      const refusal =
        /Cannot use source path ".*": (it did not answer within 10 s|2 requests before this one still wait)/;
      const attacks = [1, 2, 3, 4].map((number) =>
        daemon.fails(["storage", "create", `away${number}`, "dir", `source=${source}`], refusal, { timeoutMs: limitMs })
      );
      const pushed = daemon.lido(["storage", "volume", "file", "push", "-", "fast", "v/note"], { input: "hello" });
      assert.equal((await within(5, pushed, "a push into a volume")).code, 0);
      await within(5, daemon.ok("storage", "create", "own", "dir"), "the making of another pool");
      await within(5, daemon.ok("storage", "delete", "own"), "its deletion");
      await Promise.all(attacks);
    }
    await daemon.ok("storage", "create", "away1", "dir", `source=${source}`);
    await daemon.ok("storage", "delete", "away1");
  });

  await t.step("a pool whose source stops answering, until it does", async () => {
    const [backing, source] = [join(places, "backing"), join(places, "remote")];
    for (const path of [backing, source]) mkdirSync(path);
    await using fuse = await PausingFuse.mount(backing, source);
    await daemon.ok("storage", "create", "away", "dir", `source=${source}`);
    for (const name of ["v", "w", "x", "y"]) await daemon.ok("storage", "volume", "create", "away", name);
    await daemon.ok("init", "bb", "c6");
    await daemon.ok("config", "device", "add", "c6", "d", "disk", "pool=away", "source=v", "path=/mnt/away");
    writeFileSync(join(backing, "custom/default_v/file"), "");
    const is = async (expected: string) => {
      const limit = performance.now() + 30_000 * slowness;
      for (let status = ""; status !== expected;) {
        assert.ok(performance.now() < limit, `the pool is ${status} and not ${expected}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
        ({ status } = await daemon.query("/1.0/storage-pools/away") as { status: string });
      }
    };
    {
      await using _second = new SecondClient(daemon.directory);
      const refusal = /Storage pool "away" is unavailable: .*(not answer|still wait)/;
      await fuse.pause();
      // Before the daemon has noticed the pause.
      const attacks = [
        ["start", "c6"],
        ["config", "device", "add", "c2", "away", "disk", "pool=away", "source=w", "path=/mnt/away"],
        ["storage", "info", "away"],
        ["storage", "volume", "create", "away", "new"],
        ["storage", "volume", "delete", "away", "x"],
        ["storage", "volume", "rename", "away", "y", "z"],
        ["storage", "volume", "snapshot", "away", "y", "s0"],
        ["storage", "volume", "copy", "away/w", "fast/copied"],
        ["storage", "volume", "export", "away", "w", join(places, "w.tar")],
        ["storage", "volume", "file", "ls", "away", "v/"],
        ["storage", "volume", "file", "pull", "away", "v/file", "-"],
        ["storage", "volume", "file", "delete", "away", "v/file"],
      ].map((argv) => daemon.fails(argv, refusal, { timeoutMs: limitMs }));
      // Changes in the database alone succeed; only their record is not written.
      const others = [["storage", "set", "away", "user.key=1"], ["admin", "recover", "--yes"], ["admin", "check"]]
        .map((argv) => daemon.lido(argv, { timeoutMs: limitMs }));
      for (let round = 0; round < 5; round++) {
        const pushed = daemon.lido(["storage", "volume", "file", "push", "-", "fast", "v/note"], { input: "hello" });
        assert.equal((await within(5, pushed, "a push into a volume")).code, 0);
        await within(5, daemon.ok("storage", "volume", "create", "fast", "new"), "the making of a volume elsewhere");
        await within(5, daemon.ok("storage", "volume", "delete", "fast", "new"), "its deletion");
      }
      await Promise.all(attacks);
      const [set, , check] = await Promise.all(others);
      assert.equal(set!.code, 0, set!.err);
      assert.match(check!.out + check!.err, /"?away"? is unavailable|pool\/away/);
      await is("Unavailable");
      await within(5, daemon.fails(["storage", "volume", "create", "away", "u"], refusal), "a refusal");
      const pushed = daemon.lido(["storage", "volume", "file", "push", "-", "fast", "v/note"], { input: "hello" });
      assert.equal((await within(5, pushed, "a push into a volume")).code, 0);
      await fuse.resume();
    }
    await is("Created");
    await daemon.ok("start", "c6");
    await daemon.ok("exec", "c6", "--", "cat", "/mnt/away/file");
    await daemon.ok("delete", "-f", "c6");
    for (const name of ["v", "w", "x", "y"]) await daemon.ok("storage", "volume", "delete", "away", name);
    await daemon.ok("storage", "delete", "away");
  });

  await t.step("an LXCFS that never answers", async () => {
    await using _second = new SecondClient(daemon.directory);
    await using _fuse = await HangingFuse.mount(lxcfs, undefined, "lxcfs");
    await until("it is told", () => daemon.log.includes("has ended (it does not answer)"));
    const pull = ["storage", "volume", "file", "pull", "fast", "v/note", "-"];
    for (let round = 0; round < 3; round++) {
      const pulls = [1, 2, 3, 4].map(() => daemon.ok(...pull));
      assert.deepEqual(await within(5, Promise.all(pulls), "pulls from a volume"), Array(4).fill("hello"));
    }
    await within(15, daemon.ok("restart", "-f", "c5"), "a start");
  });

  await t.step("a lease on a file of a volume", async () => {
    await using _second = new SecondClient(daemon.directory);
    const path = join(daemon.directory, "storage-pools/fast/custom/default_v/note");
    const holder = await lease(path);
    try {
      const pull = ["storage", "volume", "file", "pull", "fast", "v/note", "-"];
      await within(5, daemon.fails(pull, /a process has a lease on it/), "a pull");
    } finally {
      holder.kill();
    }
  });

  await t.step(
    "a command that its container keeps from being executed is not executed later, and the container ends",
    async () => {
      try {
        const { code, err } = await held;
        assert.notEqual(code, 0);
        assert.match(err, /the start of the command/);
      } finally {
        holding.kill();
      }
      await within(10, daemon.ok("stop", "-f", "c7"), "a stop");
      await daemon.noZombies();
    },
  );
  assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
});
