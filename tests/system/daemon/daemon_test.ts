/** The daemon's life: one daemon per directory, clean and unclean ends, adoption of its containers. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Server } from "../../../api/types.ts";
import { command, type Outcome } from "../../support/command.ts";
import { Daemon, executable, fastPool } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { until } from "../../support/lxcfs.ts";
import { kernelObjects } from "../../support/traces.ts";

Deno.test("a daemon's socket, its second, its end and its next", async (t) => {
  await using daemon = await Daemon.start();
  const socket = join(daemon.directory, "unix.socket");

  await t.step("the socket is root's, 0660", () => {
    const { mode, uid, gid } = statSync(socket);
    assert.deepEqual([mode & 0o777, uid, gid], [0o660, 0, 0]);
  });

  await t.step("a second daemon is refused with the pid of the first, which goes on", async () => {
    await daemon.fails(
      ["daemon"],
      new RegExp(`A daemon with pid ${daemon.pid} is already running in "${daemon.directory}"`),
    );
    await daemon.ok("list");
  });

  await daemon.furnish(await busyboxImage());
  await daemon.ok("launch", "bb", "c1");
  await daemon.ok("launch", "bb", "c2", "-s", "plain");
  await daemon.ok("storage", "volume", "create", "fast", "data");
  await daemon.ok("storage", "volume", "attach", "fast", "data", "c1", "/mnt/data");
  await daemon.ok("exec", "c1", "--", "sh", "-c", "echo kept > /mnt/data/f");
  const pidOf = async (name: string) => (await daemon.query(`/1.0/instances/${name}/state`) as { pid: number }).pid;

  for (const [how, end] of [["SIGTERM", () => daemon.terminate()], ["SIGKILL", () => daemon.kill()]] as const) {
    await t.step(`containers go on after ${how} and are found again`, async () => {
      const pids = [await pidOf("c1"), await pidOf("c2")];
      const code = await end();
      assert.equal(code, how === "SIGTERM" ? 0 : 255);
      assert.equal(existsSync(socket), how === "SIGKILL");
      for (const pid of pids) assert.ok(existsSync(`/proc/${pid}`), `container process ${pid} is gone`);
      await daemon.up();
      assert.deepEqual([await pidOf("c1"), await pidOf("c2")], pids);
      assert.equal(await daemon.ok("exec", "c1", "--", "cat", "/mnt/data/f"), "kept");
    });
  }

  await t.step("a container that ended while there was no daemon is known to be stopped", async () => {
    // Otherwise the new daemon would start it, as after a boot.
    await daemon.ok("config", "set", "c2", "boot.autostart=false");
    const pid = await pidOf("c2");
    await daemon.terminate();
    process.kill(pid, "SIGKILL");
    await daemon.up();
    assert.equal(await daemon.ok("list", "-f", "csv", "-c", "ns"), "c1,RUNNING\nc2,STOPPED");
    await daemon.ok("start", "c2");
  });

  await t.step("shutdown ends it, the socket is gone, and the pools that nothing uses are let go", async () => {
    await daemon.ok("storage", "create", "unused", ...fastPool);
    await daemon.ok("storage", "volume", "create", "unused", "v");
    await daemon.ok("storage", "create", "stopped", ...fastPool);
    await daemon.ok("init", "bb", "c3", "-s", "stopped");
    const onHost = (pool: string) => [...daemon.traces(), ...kernelObjects()].filter((line) => line.includes(pool));
    const before = [onHost("fast"), onHost("plain")];
    for (const pool of ["unused", "stopped"]) assert.notDeepEqual(onHost(pool), []);
    const pid = await pidOf("c1");
    await daemon.ok("shutdown");
    await daemon.ended;
    assert.equal(existsSync(socket), false);
    // The kernel detaches a loop device when no mount namespace uses it any more. A container that another daemon is just starting still has a copy
    // of our mounts.
    for (const pool of ["unused", "stopped"]) {
      await until(() => Promise.resolve(onHost(pool).length === 0), `nothing is left of pool "${pool}"`);
    }
    assert.deepEqual([onHost("fast"), onHost("plain")], before);
    await daemon.up();
    assert.equal(await pidOf("c1"), pid);
    await daemon.ok("start", "c3");
    await daemon.ok("delete", "-f", "c3");
    await daemon.ok("storage", "volume", "delete", "unused", "v");
    for (const pool of ["unused", "stopped"]) await daemon.ok("storage", "delete", pool);
  });

  await t.step("admin init --minimal on a daemon that has its pool changes nothing", async () => {
    const before = await daemon.query("/1.0/storage-pools?recursion=1");
    await daemon.ok("admin", "init", "--minimal");
    assert.deepEqual(await daemon.query("/1.0/storage-pools?recursion=1"), before);
  });
});

Deno.test("a tool that a killed daemon was waiting for does not go on beside the next one", async () => {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "b", "btrfs", "size=256MiB");
  await daemon.ok("storage", "volume", "create", "b", "v");
  const path = join(daemon.directory, "storage-pools/b/custom/default_v/data");
  let tool: number | undefined;
  let asked: Promise<Outcome> | undefined;
  const state = () => tool === undefined ? "" : /^State:\t(\w)/m.exec(readOr(`${tool}/status`))?.[1] ?? "";
  const goesOn = () => tool !== undefined && existsSync(`/proc/${tool}/exe`);
  try {
    // A confined tool ends with its daemon. This one is not confined; it takes a while because it has data to write first.
    for (let round = 0; state() !== "T"; round++) {
      assert.ok(round < 20, "no snapshot could be stopped");
      writeFileSync(path, randomBytes(32 * 2 ** 20));
      let isOver = false;
      asked = daemon.lido(["storage", "volume", "snapshot", "b", "v", `s${round}`]);
      asked.finally(() => isOver = true).catch(() => {}); // in case of an earlier failure
      tool = undefined;
      while (!isOver && tool === undefined) {
        tool = childOf(daemon.pid, "btrfs subvolume snapshot ");
        await new Promise((resolve) => setImmediate(resolve));
      }
      if (!goesOn()) continue;
      // Stop the tool, to make it as slow as possible.
      process.kill(tool!, "SIGSTOP");
      await until(() => Promise.resolve(["T", "Z", ""].includes(state())), "it stands still, or has ended");
    }
    await daemon.kill();
    assert.equal((await asked!).code, 1);
    assert.ok(goesOn());
    await daemon.up();
    assert.ok(!goesOn());
    assert.match(
      daemon.log,
      /"tools":\["btrfs subvolume snapshot [^\n]*"ended the tools that an earlier daemon was waiting for"/,
    );
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  } finally {
    if (goesOn()) process.kill(tool!, "SIGKILL");
  }
});

Deno.test("admin init --minimal makes the default pool and the default profile's root disk", async () => {
  await using daemon = await Daemon.start();
  await daemon.ok("admin", "init", "--minimal");
  const [pool] = await daemon.query("/1.0/storage-pools?recursion=1") as { name: string; driver: string }[];
  // zfs if the host has it, otherwise btrfs, as `lxd init` chooses.
  const hasZfs = (await command(["sh", "-c", "test -e /sys/module/zfs && command -v zpool"])).code === 0;
  assert.deepEqual([pool?.name, pool?.driver], ["default", hasZfs ? "zfs" : "btrfs"]);
  const profile = await daemon.query("/1.0/profiles/default") as { devices: unknown };
  assert.deepEqual(profile.devices, { root: { path: "/", pool: "default", type: "disk" } });
});

Deno.test("a daemon goes on when its executable was replaced, and what it dumps is another's preseed", async () => {
  const replaced = join(mkdtempSync(join(tmpdir(), "lido-exe-")), "lido");
  using _directory = { [Symbol.dispose]: () => rmSync(dirname(replaced), { recursive: true }) };
  copyFileSync(executable, replaced);
  await using one = await Daemon.start({ argv: [replaced] });
  rmSync(replaced);
  await one.furnish(await busyboxImage());
  await one.ok("launch", "bb", "c1");
  await one.ok("config", "device", "add", "c1", "hot", "disk", "source=/usr/share", "path=/hot");
  await one.ok("snapshot", "c1", "s0");
  assert.equal(await one.ok("config", "show", "c1/s0"), await one.lxc("config", "show", "c1/s0"));
  await one.fails(["config", "show", "c1/none"], /"none" of instance "c1"/);
  const input = await one.ok("admin", "init", "--dump");
  assert.ok(!input.includes(one.directory) && !input.includes("volatile."), input);
  await using other = await Daemon.start();
  await other.lido(["admin", "init", "--preseed"], { input });
  assert.equal(await other.ok("admin", "init", "--dump"), input);
});

Deno.test("a daemon whose directory is where others mount disks starts containers", async () => {
  using directories = new DisposableStack();
  for (const place of ["/mnt", "/media"]) {
    const directory = mkdtempSync(join(place, "lido-test-"));
    directories.defer(() => rmSync(directory, { recursive: true, force: true }));
    await using daemon = await Daemon.start({ directory: join(directory, "lido") });
    await daemon.ok("admin", "init", "--minimal");
    await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
    await daemon.ok("launch", "bb", "c1");
    assert.equal(await daemon.ok("exec", "c1", "--", "hostname"), "c1");
    await daemon.ok("delete", "-f", "c1");
  }
});

Deno.test("admin init says of each driver that is missing which package brings it", async () => {
  await using daemon = await Daemon.start();
  const { environment } = await daemon.query("/1.0") as Server;
  const { storage_missing_drivers: missing, storage_supported_drivers: there } = environment;
  assert.equal(missing.length + there.length, 4);
  assert.match(environment.driver_version, /^\d+\.\d+/);
  // All answers are defaults but the pool: a small one.
  const { code, out } = await daemon.lido(["admin", "init"], { input: "yes\npool\ndir\nno\n" });
  assert.equal(code, 0, out);
  for (const { Name, Reason } of missing) {
    assert.match(Reason, /Debian package \S+|the kernel's own package/, Name);
    assert.ok(out.includes(`Storage backend "${Name}" cannot be used here: ${Reason}\n`), out);
    await daemon.fails(
      ["admin", "init", "--auto", "--storage-backend", Name],
      /^Error: The requested backend '\w+' isn't available on your system: .+; .*dir (is|are)$/m,
    );
  }
  const best = ["zfs", "btrfs", "dir"].find((name) => there.some(({ Name }) => Name === name));
  assert.match(out, new RegExp(`storage backend to use \\(.*dir\\) \\[default=${best}\\]: `));
  await daemon.fails(
    ["admin", "init", "--auto", "--storage-backend", "nfs"],
    /The requested backend 'nfs' isn't supported by lido init: zfs, btrfs, lvm, dir are/,
  );
});

Deno.test("without a daemon the client names the socket and how to start one", async () => {
  const directory = mkdtempSync(join(tmpdir(), "lido-none-"));
  try {
    const options = { env: { LIDO_DIR: directory } };
    for (const argv of [["list"], ["exec", "c1", "--", "true"], ["storage", "list"]]) {
      const { code, err } = await command([executable, ...argv], options);
      const expected = `Error: Cannot connect to the lido daemon at "${directory}/unix.socket": ` +
        `no such file or directory; no daemon runs: start it with "lido daemon"\n`;
      assert.deepEqual([code, err], [1, expected]);
    }
    const waited = await command([executable, "waitready", "--timeout", "1"], options);
    assert.equal(waited.code, 1);
    assert.match(waited.err, /^Error: The daemon is not ready after 1 s: Cannot connect [^\n]+\n$/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

Deno.test("who may not use the socket is told which group may", async () => {
  await using daemon = await Daemon.start({ flags: ["--group", "audio"] });
  const socket = join(daemon.directory, "unix.socket");
  // The temporary directory of the run is not accessible for others.
  for (let path = dirname(daemon.directory); path !== "/"; path = dirname(path)) {
    const { mode } = statSync(path);
    if ((mode & 1) === 0) chmodSync(path, mode | 1);
  }
  const asNobody = () =>
    command(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", executable, "list"], {
      env: { LIDO_SOCKET: socket },
    });
  const member = await asNobody();
  assert.deepEqual([member.code, member.err], [
    1,
    `Error: Cannot connect to the lido daemon at "${socket}": permission denied; its users are root and the group ` +
    `"audio": "adduser nobody audio", then log in again\n`,
  ]);
  chownSync(socket, 0, 0);
  assert.match((await asNobody()).err, /permission denied; only root may use it; "lido daemon --group NAME" lets/);
});

Deno.test("shutdown returns when the daemon's process has ended, and a new one can be started at once", async () => {
  await using daemon = await Daemon.start();
  for (let round = 0; round < 5; round++) {
    const { pid } = daemon;
    await daemon.ok("shutdown");
    // The process is this test's child: it stays a zombie until it is reaped.
    const state = /^State:\s+(\S)/m.exec(await readFile(`/proc/${pid}/status`, "utf8").catch(() => ""))?.[1] ?? "gone";
    assert.match(state, /^(Z|gone)$/);
    await daemon.ended;
    await daemon.up();
  }
});

Deno.test("shutdown and waitready end with their timeout when the daemon hangs", async () => {
  await using daemon = await Daemon.start();
  process.kill(daemon.pid, "SIGSTOP");
  try {
    await daemon.fails(
      ["shutdown", "-t", "1"],
      /^Error: The daemon has not ended after 1 s\n$/,
      { timeoutMs: 10_000 },
    );
    await daemon.fails(
      ["waitready", "-t", "1"],
      /^Error: The daemon is not ready after 1 s: it does not answer\n$/,
      { timeoutMs: 10_000 },
    );
  } finally {
    process.kill(daemon.pid, "SIGCONT");
  }
});

Deno.test("a daemon refuses a host or a directory it cannot serve", async () => {
  const directory = mkdtempSync(join(tmpdir(), "lido-bad-"));
  try {
    const run = (argv: readonly string[], lido: string) => command(argv, { env: { LIDO_DIR: lido } });
    const user = await run(["setpriv", "--reuid=65534", "--clear-groups", executable, "daemon"], directory);
    assert.deepEqual([user.code, user.err], [1, "Error: The daemon must be run as root\n"]);
    const long = join(directory, "d".repeat(120));
    const far = await run([executable, "daemon"], long);
    assert.equal(far.code, 1);
    assert.match(far.err, /^Error: The path "[^"]+" is longer than a socket's may be: 107 bytes\n$/);
    const group = await run([executable, "daemon", "--group", "nosuch"], directory);
    assert.deepEqual([group.code, group.err], [1, 'Error: Group "nosuch" not found in /etc/group\n']);
    const level = await run([executable, "daemon", "--log-level", "loud"], directory);
    assert.match(level.err, /^Error: Invalid log level "loud": trace, debug, info, warn, error, fatal are allowed\n$/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

function readOr(file: string): string {
  try {
    return readFileSync(`/proc/${file}`, "utf8");
  } catch {
    return ""; // it has ended
  }
}

/** @returns Pid of a child whose command line begins with `words`. */
function childOf(pid: number, words: string): number | undefined {
  return readdirSync(`/proc/${pid}/task`).flatMap((thread) => readOr(`${pid}/task/${thread}/children`).split(" "))
    .filter(Boolean).map(Number).find((child) => readOr(`${child}/cmdline`).replaceAll("\0", " ").startsWith(words));
}
