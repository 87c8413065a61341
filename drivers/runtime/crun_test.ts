import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { environment, log, type Opened, runIn, withContainer } from "../../tests/support/running_container.ts";
import { program32, program64 } from "../../tests/support/tiny_elf.ts";
import { closeFd, readFd } from "../host/process/process.ts";
import { childEndWithin } from "./process/child.ts";
import { CrunRuntime } from "./crun.ts";
import type { ContainerSpec } from "./runtime.ts";

Deno.test("a container runs as its own root, hostname, pids and cgroup; its files on disk are root's", () =>
  withContainer(async ({ run, runtime, spec }) => {
    const { output } = await run([
      "sh",
      "-c",
      "id -u; hostname; cat /proc/1/comm; cat /proc/self/uid_map; touch /root/made; ip -o link show lo",
    ]);
    const [uid, hostname, init, map, lo] = output.split("\n");
    assert.deepEqual([uid, hostname, init, map?.trim().split(/\s+/)], ["0", "c1", "init", ["0", "1000000", "65536"]]);
    assert.match(lo ?? "", /lo: <LOOPBACK,UP/);
    assert.equal(statSync(join(spec.rootfs, "root/made")).uid, 0);
    assert.equal(statSync(`/proc/${runtime.get("c1")!.pid}`).uid, 1_000_000);
    const { processes, memoryBytes } = await runtime.usage("c1");
    assert.ok(processes >= 2 && memoryBytes > 0n, `${processes} processes, ${memoryBytes} bytes`);
  }));

Deno.test("exec tells exit codes, signals, and commands that cannot be started", () =>
  withContainer(async ({ run }) => {
    assert.deepEqual((await run(["true"])).status, { code: 0 });
    assert.deepEqual((await run(["sh", "-c", "exit 42"])).status, { code: 42 });
    assert.deepEqual((await run(["sh", "-c", "exit 255"])).status, { code: 255 });
    assert.deepEqual((await run(["sh", "-c", "kill -9 $$"])).status, { signal: 9 });
    await assert.rejects(run(["nosuch"]), { name: "LaunchError", exitCode: 127, message: "Command not found" });
    await assert.rejects(run(["/nosuch/file"]), { name: "LaunchError", exitCode: 127 });
    await assert.rejects(run(["/etc/passwd"]), {
      name: "LaunchError",
      exitCode: 126,
      message: "Command not executable",
    });
    await assert.rejects(run(["/etc"]), { name: "LaunchError", exitCode: 126 });
    await assert.rejects(run(["true"], { cwd: "/nosuch" }), /Cannot change to directory "\/nosuch"/);
    assert.equal((await run(["id"], { uid: 1000, cwd: "/tmp" })).output, "uid=1000(user) gid=1000(user)\n");
  }));

function readAll(fd: number): string {
  const buffer = new Uint8Array(1000);
  let text = "";
  for (let count: ReturnType<typeof readFd>; typeof (count = readFd(fd, buffer)) === "number" && count > 0;) {
    text += new TextDecoder().decode(buffer.subarray(0, count));
  }
  return text;
}

/** Runs a command on a terminal until it ends. @returns Its output. */
async function onTerminal(
  { runtime, poller }: Opened,
  argv: readonly string[],
  { uid = 0, width = 0, height = 0 } = {},
): Promise<string> {
  const spec = { argv, environment, cwd: "/", uid, gid: uid };
  const command = await runtime.exec("c1", spec, { kind: "pty", width, height });
  try {
    await childEndWithin(poller, command.pid, 10_000);
    return readAll(command.pty!);
  } finally {
    command.reaped?.();
    closeFd(command.pty!);
    closeFd(command.pidfd);
  }
}

Deno.test("exec gives a terminal of the container's own, which has the size that was asked for from the first instruction on", () =>
  withContainer(async (container) => {
    for (let round = 0; round < 20; round++) {
      assert.equal(await onTerminal(container, ["stty", "size"], { width: 91, height: 33 }), "33 91\r\n");
    }
    assert.match(await onTerminal(container, ["tty"]), /^\/dev\/pts\/\d+\r\n$/);
  }));

Deno.test("no signal is ignored in a container, the two that the C library uses itself included", () =>
  withContainer(async ({ run }) => {
    const { output } = await run(["grep", "-h", "SigIgn", "/proc/1/status", "/proc/self/status"]);
    assert.match(output, /^(SigIgn:\t0{16}\n){2}$/);
  }));

Deno.test("a terminal belongs to the command's user, who may open it by name", () =>
  withContainer(async (container) => {
    const argv = ["sh", "-c", 'echo out >/dev/stdout; echo x >/dev/stderr; stat -c "%u %g %a" $(tty)'];
    for (const uid of [0, 1000, 1000, 1000]) {
      assert.equal(await onTerminal(container, argv, { uid }), `out\r\nx\r\n${uid} 5 620\r\n`);
    }
  }));

Deno.test("the end of a container is told once, and nothing of it is left", () =>
  withContainer(async ({ base, runtime }) => {
    const told: unknown[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    runtime.onExit((name, status) => {
      told.push([name, status]);
      resolve();
    });
    await runtime.kill("c1", 9);
    await promise;
    assert.deepEqual(told, [["c1", { signal: 9 }]]);
    assert.equal(runtime.get("c1"), undefined);
    assert.equal(existsSync(join(base, "run/c1")), false);
    assert.equal(existsSync(join(base, "run/.crun/c1")), false);
    await runtime.destroy("c1");
  }));

Deno.test("freeze and unfreeze; a frozen container can be destroyed", () =>
  withContainer(async ({ runtime }) => {
    await runtime.freeze("c1");
    assert.equal(runtime.get("c1")?.status, "frozen");
    await runtime.unfreeze("c1");
    assert.equal(runtime.get("c1")?.status, "running");
    await runtime.freeze("c1");
    await runtime.destroy("c1");
    assert.equal(runtime.get("c1"), undefined);
  }));

Deno.test("a command of a user or a group that the container's map does not have is refused", () =>
  withContainer(async ({ run }) => {
    const refused = {
      code: "bad_request",
      message: /^Cannot run as user 4294967294 and group 4294967294: .* no such ids$/,
    };
    await assert.rejects(run(["true"], { uid: 4_294_967_294 }), refused);
  }));

Deno.test("a command that comes as the container ends or is frozen is told so", () =>
  withContainer(async ({ runtime, run }) => {
    await runtime.freeze("c1");
    await assert.rejects(run(["true"]), { code: "bad_request", message: 'Instance is frozen: "c1"' });
    await runtime.unfreeze("c1");
    process.kill(runtime.get("c1")!.pid, "SIGKILL"); // the runtime learns of it later
    await assert.rejects(run(["true"]), { code: "bad_request", message: 'Instance is not running: "c1"' });
  }));

Deno.test("commands that are being started when the container is killed are told so, and none that crun failed", () =>
  withContainer(async ({ runtime, run }) => {
    const failures: unknown[] = [];
    // Each start is interrupted at another moment.
    const starts = async () => {
      for (let more = true; more;) {
        await run(["true"]).catch((error) => {
          more = false;
          failures.push(error);
        });
      }
    };
    const started = Array.from({ length: 8 }, starts);
    await run(["true"]);
    process.kill(runtime.get("c1")!.pid, "SIGKILL");
    await Promise.all(started);
    assert.deepEqual(failures.map((error) => (error as Error).message), Array(8).fill('Instance is not running: "c1"'));
  }));

Deno.test("what a console is asked as its container ends is refused, and no fault", () =>
  withContainer(async ({ runtime }) => {
    const destroyed = runtime.destroy("c1");
    for (const ask of [() => runtime.clearConsole("c1"), () => runtime.consoleContent("c1")]) {
      await assert.rejects(
        async () => {
          for (;;) await ask();
        },
        { code: "bad_request", message: /^(The i|I)nstance is not running: "c1"$/ },
      );
    }
    await destroyed;
  }));

Deno.test("another runtime on the same directory takes the container up, and knows when it ends", () =>
  withContainer(async ({ base, poller, runtime }) => {
    const next = new CrunRuntime({ root: join(base, "run"), poller, log });
    const [adopted] = await next.adopt();
    assert.equal(adopted?.pid, runtime.get("c1")?.pid);
    const ended = new Promise((resolve) => next.onExit((name) => resolve(name)));
    assert.deepEqual((await runIn(next, poller, ["sh", "-c", "exit 3"])).status, { code: 3 });
    await next.kill("c1", 9);
    assert.equal(await ended, "c1");
    await next.close();
  }));

Deno.test("a start that fails says why and leaves nothing", () =>
  withContainer(async ({ base, runtime, spec }) => {
    await assert.rejects(runtime.start({ ...spec, name: "c2", init: ["/nosuch"] }), /Failed to start "c2": .*nosuch/);
    assert.equal(existsSync(join(base, "run/c2")), false);
    assert.equal(existsSync(join(base, "run/.crun/c2")), false);
  }));

Deno.test("a volume comes and goes while the container runs; its owner inside is root", () =>
  withContainer(async ({ base, run, runtime }) => {
    mkdirSync(join(base, "volume"));
    await runtime.attach("c1", { source: join(base, "volume"), target: "/data/deep", shifted: true });
    assert.equal(
      (await run(["sh", "-c", "touch /data/deep/x; stat -c %u /data /data/deep /data/deep/x"])).output,
      "0\n0\n0\n",
    );
    assert.equal(statSync(join(base, "volume/x")).uid, 0);
    const asleep = `until [ "$(tr '\\0' ' ' </proc/$!/cmdline)" = "sleep 1000 " ]; do :; done`;
    const { output } = await run(["sh", "-c", `cd /data/deep; sleep 1000 >/dev/null 2>&1 & ${asleep}; echo $!`]);
    const place = { source: join(base, "volume"), target: "/data/deep" };
    assert.equal(await runtime.isAttached("c1", place), true);
    await assert.rejects(
      runtime.detach("c1", place),
      new RegExp(`: it is in use by sleep 1000 \\(pid ${output.trim()}\\)$`),
    );
    await runtime.detach("c1", place, { lazy: true });
    assert.equal((await run(["ls", "/data/deep"])).output, "");
    assert.equal(await runtime.isAttached("c1", place), false);
    await runtime.detach("c1", place);
  }));

Deno.test("a mount is found where the container moved it, and not taken for one of the container's own", () =>
  withContainer(async ({ base, run, runtime }) => {
    const source = join(base, "volume");
    mkdirSync(source);
    writeFileSync(join(source, "file"), "");
    const place = { source, target: "/a/b" };
    const mounted = async () => (await run(["grep", "-c", "/volume ", "/proc/self/mountinfo"])).output;

    await runtime.attach("c1", place);
    await run(["sh", "-c", "mount -t tmpfs none /a/b/"]);
    await assert.rejects(runtime.detach("c1", place), /the instance has mounted something over it/);
    await runtime.detach("c1", place, { lazy: true });
    assert.equal(await mounted(), "0\n");

    await runtime.attach("c1", place);
    await run(["sh", "-c", "mv /a /z; mkdir -p /a/b; mount -t tmpfs none /a/b"]);
    await runtime.detach("c1", place);
    assert.equal(await mounted(), "0\n");
    assert.match((await run(["grep", "/a/b ", "/proc/self/mountinfo"])).output, /tmpfs/);

    await run(["umount", "/a/b"]);
    await runtime.attach("c1", place);
    await run(["umount", "/a/b"]);
    await runtime.detach("c1", place);
    await runtime.attach("c1", { ...place, shifted: true });
    await run(["sh", "-c", "mkdir /a/b/below; mount -t tmpfs none /a/b/below"]);
    await assert.rejects(runtime.detach("c1", place), /in use by a mount at "\/a\/b\/below"$/);
  }));

Deno.test("a symlink planted at the target leads nowhere", () =>
  withContainer(async ({ base, run, runtime, spec }) => {
    mkdirSync(join(base, "volume"));
    mkdirSync(join(base, "outside"));
    symlinkSync(join(base, "outside"), join(spec.rootfs, "mnt/trap"));
    await assert.rejects(
      runtime.attach("c1", { source: join(base, "volume"), target: "/mnt/trap", shifted: true }),
      /a symbolic link is there/,
    );
    await assert.rejects(
      runtime.attach("c1", { source: join(base, "volume"), target: "/mnt/trap/x", shifted: true }),
      /a symbolic link on the way leads nowhere/,
    );
    assert.deepEqual(readdirSync(join(base, "outside")), []);
    assert.doesNotMatch(readFileSync(`/proc/${runtime.get("c1")!.pid}/mounts`, "utf8"), /volume/);
    // The same path within the container's root belongs to the container.
    mkdirSync(join(spec.rootfs, base, "outside"), { recursive: true });
    await runtime.attach("c1", { source: join(base, "volume"), target: "/mnt/trap/x", shifted: true });
    assert.deepEqual(readdirSync(join(base, "outside")), []);
    await runtime.detach("c1", { source: join(base, "volume"), target: "/mnt/trap/x" });
    assert.equal((await run(["true"])).status.code, 0);
  }));

Deno.test("a mount below the container's own symlinks is found where they lead", () =>
  withContainer(async ({ base, run, runtime }) => {
    const source = join(base, "volume");
    mkdirSync(source);
    await run(["sh", "-c", "mkdir -p /run /var; rm -rf /var/run; ln -s /run /var/run; ln -s run /var/again"]);
    const place = { source, target: "/var/again/data" };
    const where = async () => (await run(["sh", "-c", "grep '/volume ' /proc/self/mountinfo | cut -d' ' -f5"])).output;

    await runtime.attach("c1", { ...place, shifted: true });
    assert.equal(await where(), "/run/data\n");
    assert.equal(await runtime.isAttached("c1", place), true);
    await run(["sh", "-c", "mkdir /run/data/below; mount -t tmpfs none /run/data/below"]);
    await assert.rejects(runtime.detach("c1", place), /in use by a mount at "\/run\/data\/below"$/);
    await run(["sh", "-c", "umount /run/data/below; mount -t tmpfs none /run/data"]);
    await assert.rejects(runtime.detach("c1", place), /the instance has mounted something over it/);
    await run(["sh", "-c", "umount /run/data; rm /var/again; ln -s /tmp /var/again"]);
    await runtime.detach("c1", place);
    assert.equal(await where(), "");
  }));

Deno.test("mounts of the specification are there, a read-only one is", async () => {
  const source = mkdtempSync(join(tmpdir(), "lido-volume-"));
  try {
    await withContainer(async ({ run }) => {
      assert.equal(
        (await run(["sh", "-c", "touch /a/x && stat -c %u /a/x; touch /b/y 2>&1"])).output,
        "0\ntouch: /b/y: Read-only file system\n",
      );
    }, {
      mounts: [{ source, target: "/a", shifted: true }, { source, target: "/b", shifted: true, options: ["ro"] }],
    });
    assert.equal(statSync(join(source, "x")).uid, 0);
  } finally {
    rmSync(source, { recursive: true });
  }
});

Deno.test("a part of a volume is mounted, and a symlink in the volume leads nowhere", async () => {
  const source = mkdtempSync(join(tmpdir(), "lido-volume-"));
  try {
    mkdirSync(join(source, "sub"));
    writeFileSync(join(source, "sub/file"), "hello\n");
    symlinkSync("/etc", join(source, "trap"));
    await withContainer(async ({ run, runtime, spec }) => {
      assert.equal((await run(["cat", "/a/file", "/b"])).output, "hello\nhello\n");
      await runtime.attach("c1", { source, subPath: "sub", target: "/c", shifted: true });
      assert.equal((await run(["stat", "-c", "%u", "/c/file"])).output, "0\n");
      await assert.rejects(
        runtime.attach("c1", { source, subPath: "trap", target: "/d" }),
        /too many levels of symbolic links/,
      );
      const mounts = [{ source, subPath: "trap", target: "/d" }];
      await assert.rejects(runtime.start({ ...spec, name: "c2", mounts }), /too many levels of symbolic links/);
    }, {
      mounts: [
        { source, subPath: "sub", target: "/a" },
        { source, subPath: "sub/file", target: "/b", shifted: true },
      ],
    });
  } finally {
    rmSync(source, { recursive: true });
  }
});

Deno.test("a container's standard streams are not the host's: their owner, its root, could close /dev/null to everybody", () =>
  withContainer(async ({ run }) => {
    const { output } = await run(["sh", "-c", "chmod 600 /dev/null /proc/1/fd/* 2>&1; stat -c %a /dev/null"]);
    assert.match(output, /\n666\n$/);
    const { uid, mode } = statSync("/dev/null");
    assert.notEqual(uid, 1_000_000);
    assert.equal(mode & 0o777, 0o666);
  }));

Deno.test("a container has the host's nodes and kernel filesystems that LXD gives it, and a boot id of its own", async () => {
  const bootIds = new Set([readFileSync("/proc/sys/kernel/random/boot_id", "utf8")]);
  const look = async (options: Partial<ContainerSpec>) => {
    await withContainer(async ({ run }) => {
      const { output } = await run([
        "sh",
        "-c",
        "cat /proc/self/mountinfo; stat -c %F /dev/full /dev/net/tun /dev/fuse",
      ]);
      const mounted = output.split("\n").map((line) => line.split(" ")).map((fields) => `${fields[4]} ${fields[5]}`);
      const paths = ["/dev/fuse", "/dev/net/tun", "/sys/fs/pstore", "/sys/kernel/debug", "/sys/kernel/security"];
      for (const path of paths.filter(existsSync)) assert.ok(mounted.includes(`${path} rw,relatime`), path);
      const sys = options.rootfsShifted === false ? "ro,nosuid,nodev,noexec,relatime" : "rw,relatime";
      assert.ok(mounted.includes(`/sys ${sys}`), output);
      bootIds.add((await run(["cat", "/proc/sys/kernel/random/boot_id"])).output);
    }, options);
  };
  await look({});
  await look({});
  await look({ idmap: undefined, rootfsShifted: false });
  assert.equal(bootIds.size, 4);
  for (const id of bootIds) assert.match(id, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\n$/);
});

Deno.test("a privileged container may change its network's settings, and no other of the host's", () =>
  withContainer(async ({ run }) => {
    const { output } = await run([
      "sh",
      "-c",
      "for f in net/ipv4/ip_forward kernel/printk vm/swappiness fs/file-max; do cat /proc/sys/$f > /tmp/v; cat /tmp/v > /proc/sys/$f && echo $f; done 2>/dev/null",
    ]);
    assert.equal(output, "net/ipv4/ip_forward\n");
  }, { idmap: undefined, rootfsShifted: false }));

Deno.test("a privileged container runs on the host's ids", () =>
  withContainer(async ({ run }) => {
    assert.match((await run(["cat", "/proc/self/uid_map"])).output, /^\s*0\s+0\s+4294967295\n$/);
  }, { idmap: undefined, rootfsShifted: false }));

/** The result of each program's one system call in a container: errno, 0 for success. */
async function callsWithin(programs: Readonly<Record<string, Uint8Array>>): Promise<Record<string, number | string>> {
  const source = mkdtempSync(join(tmpdir(), "lido-programs-"));
  try {
    for (const [name, program] of Object.entries(programs)) writeFileSync(join(source, name), program, { mode: 0o755 });
    const results: Record<string, number | string> = {};
    await withContainer(async ({ run }) => {
      for (const name of Object.keys(programs)) {
        const { code, signal } = (await run([`/programs/${name}`])).status;
        results[name] = code ?? `signal ${signal}`;
      }
    }, { mounts: [{ source, target: "/programs", shifted: true }] });
    return results;
  } finally {
    rmSync(source, { recursive: true });
  }
}

Deno.test({
  name: "32-bit programs run, and every instruction set is refused what LXD refuses" +
    (process.arch === "x64" ? "" : ": its programs are for x86"),
  ignore: process.arch !== "x64",
  fn: async () => {
    const EACCES = 13, ENOENT = 2, ENOSYS = 38, x32 = 0x4000_0000, force = 1;
    const path = 0x40_0000; // the program's own first bytes: not the path of an existing file
    assert.deepEqual(
      await callsWithin({
        "getuid": program64(102),
        "getuid-32": program32(24),
        "kexec_load": program64(246),
        "kexec_load-x32": program64(x32 | 528),
        "open_by_handle_at": program64(304),
        "init_module": program64(175),
        "finit_module": program64(313),
        "delete_module": program64(176),
        "delete_module-32": program32(129),
        "umount": program64(166, [path, 0]),
        "umount-forced": program64(166, [path, force]),
        "umount-forced-32": program32(52, [path, force]),
        "unshare-users-and-mounts": program64(272, [0x1002_0000, 0]),
      }),
      {
        "getuid": 0,
        "getuid-32": 0,
        "kexec_load": ENOSYS,
        "kexec_load-x32": ENOSYS,
        "open_by_handle_at": ENOSYS,
        "init_module": ENOSYS,
        "finit_module": ENOSYS,
        "delete_module": ENOSYS,
        "delete_module-32": ENOSYS,
        "umount": ENOENT,
        "umount-forced": EACCES,
        "umount-forced-32": EACCES,
        "unshare-users-and-mounts": 0,
      },
    );
  },
});
