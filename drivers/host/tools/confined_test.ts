import assert from "node:assert/strict";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { boxed } from "./confined.ts";
import { CommandError, type Confinement } from "../host.ts";
import { createHost } from "../real.ts";

const host = createHost();
const told = async (confinement: Confinement, ...argv: string[]) =>
  (await host.confined(confinement).run(argv, { timeoutMs: 20_000 })).stdout.trim();

Deno.test("a confined tool sees its trees and the host's programs, and nothing of the host", async (t) => {
  const work = mkdtempSync(join(tmpdir(), "lido-confined-"));
  try {
    const tree = join(work, "tree"), secret = join(work, "secret");
    mkdirSync(tree);
    writeFileSync(secret, "secret\n");
    writeFileSync(join(tree, "own"), "own\n");
    symlinkSync(secret, join(tree, "link"));
    symlinkSync("../../../../../..", join(tree, "up"));
    const box = { reads: { "/tree": tree } };
    const shell = (script: string, confinement: Confinement = box) => told(confinement, "sh", "-c", script);

    await t.step("files", async () => {
      assert.equal(await shell("cat /tree/own; cat /tree/link 2>/dev/null || echo none"), "own\nnone");
      const seen = (await shell("ls -A / /tree/up")).split("\n");
      const programs = ["bin", "etc", "lib", "lib32", "lib64", "sbin", "usr"];
      assert.deepEqual([...new Set(seen)].filter((one) => !programs.includes(one) && !/:$|^$/.test(one)), ["tree"]);
      await assert.rejects(shell("echo x > /tree/new"), /Read-only file system/);
      await assert.rejects(shell("echo x > /usr/new"), /Read-only file system/);
      assert.equal(await shell("echo x > /tree/new; cat /tree/new", { writes: { "/tree": tree } }), "x");
    });

    await t.step("processes, network and descriptors", async () => {
      const proc = { devices: ["/dev/zero"] };
      // Its own process is number 1, and there is no other.
      assert.equal(await shell("cd /proc; echo [0-9]*", proc), "1");
      assert.equal(await shell("kill -9 2 2>/dev/null || echo none"), "none");
      assert.equal((await shell("cat /proc/net/dev | tail -n +3 | cut -d: -f1", proc)).trim(), "lo");
      assert.equal(await shell("ls /proc/self/fd | tr '\\n' ' '", proc), "0 1 2 3"); // 3 is of ls
      await assert.rejects(shell("cat /proc/sys/vm/swappiness > /proc/sys/vm/swappiness", proc), /Read-only/);
    });

    await t.step("capabilities and system calls", async () => {
      const status = (confinement: Confinement) =>
        shell("grep -E 'CapPrm|CapEff|Seccomp:|NoNewPrivs' /proc/self/status", confinement);
      const none = await status({ devices: ["/dev/zero"] });
      assert.match(none, /CapPrm:\t0+\nCapEff:\t0+\nNoNewPrivs:\t1\nSeccomp:\t2$/);
      const admin: Confinement = { devices: ["/dev/zero"], capabilities: ["CAP_SYS_ADMIN"] };
      assert.match(await status(admin), /CapPrm:\t0000000000200000\nCapEff:\t0000000000200000\n/);
      for (const script of ["mount -t tmpfs none /tree", "unshare -m true", "umount /usr", "chroot /usr /bin/true"]) {
        await assert.rejects(shell(script, { ...admin, reads: { "/tree": tree } }), CommandError, script);
      }
    });

    await t.step("memory", async () => {
      const piped = host.confined({ memoryBytes: 1 << 26 }).pipe(["tail", "-c", "1G"], {
        stdin: (await import("node:fs")).createReadStream("/dev/zero", { end: (1 << 28) - 1 }),
      });
      piped.stdout.resume();
      await assert.rejects(piped.done, /memory exhausted/);
    });

    await t.step("a directory that was exchanged is refused", async () => {
      const launch = boxed("/usr/bin/ls", ["ls", "/tree"], box);
      try {
        const fd = launch.descriptors[0]!;
        assert.equal(readlinkSync(`/proc/self/fd/${fd}`), tree);
        renameSync(tree, `${tree}-old`);
        symlinkSync("/etc", tree);
        // The bound directory is the one that was opened.
        assert.deepEqual(readdirSync(`/proc/self/fd/${fd}/`).sort(), readdirSync(`${tree}-old`).sort());
        const ended = await told({ reads: { "/tree": `${tree}-old` } }, "cat", "/tree/own");
        assert.equal(ended, "own");
      } finally {
        launch.close();
      }
    });

    await t.step("tools that are not there", async () => {
      await assert.rejects(told({}, "no-such-tool-of-lido"), /"no-such-tool-of-lido" is not installed/);
      await assert.rejects(told({ reads: { "/tree": join(work, "none") } }, "ls"), /ENOENT/);
      await assert.rejects(told({ devices: [join(work, "none")] }, "ls"), /it cannot be confined/);
    });
    assert.equal(readFileSync(secret, "utf8"), "secret\n");
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
});
