import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { CommandError } from "./host.ts";
import { canIdmap, parseSubIds, rootRanges } from "./mounts/idmap.ts";
import { parseMountInfo } from "./mounts/mounts.ts";
import { createHost } from "./real.ts";

const host = createHost();
/** Runs any tool, without access to files. */
const tools = host.confined({ devices: ["/dev/zero"] });

async function scratch(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "lido-host-"));
  try {
    await test(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

Deno.test("run() gives code and output, and throws what the tool said", async () => {
  assert.equal((await tools.run(["cat"], { stdin: "hello" })).stdout, "hello");
  assert.equal((await tools.run(["sh", "-c", "exit 3"], { okCodes: [3] })).code, 3);
  await assert.rejects(tools.run(["sh", "-c", "echo bad >&2; exit 4"]), (error: CommandError) => {
    assert.equal(error.code, 4);
    assert.match(error.message, /exit status 4 \(bad\)/);
    return true;
  });
});

Deno.test("run() says which package brings a tool that is missing", async () => {
  await assert.rejects(tools.run(["no-such-tool-of-lido"]), /"no-such-tool-of-lido" is not installed/);
});

Deno.test("run() kills a tool that takes too long, or that is no longer wanted", async () => {
  await assert.rejects(tools.run(["sleep", "1000"], { timeoutMs: 50 }), /still running after 50 ms/);
  const abort = new AbortController();
  const running = tools.run(["sleep", "1000"], { signal: abort.signal });
  abort.abort(new Error("no longer wanted"));
  await assert.rejects(running, /no longer wanted/);
});

Deno.test("run() kills a tool at any moment of its start, and leaves nothing that holds its output open", async () => {
  const killed = async (afterMs: number) => {
    const abort = new AbortController();
    const running = tools.run(["sleep", "1000"], { signal: abort.signal });
    const from = performance.now();
    while (performance.now() - from < afterMs) { /* timers are too coarse */ }
    abort.abort(new Error("no longer wanted"));
    await assert.rejects(running, /no longer wanted/);
  };
  for (let round = 0; round < 50; round++) {
    await Promise.all(Array.from({ length: 8 }, (_, index) => killed(index * 0.2 + round * 0.004)));
  }
});

Deno.test("pipe() ends a tool through which nothing goes any more, and none that is only slow", async () => {
  const stuck = tools.pipe(["sh", "-c", "echo begun; exec sleep 1000"], { stallMs: 150 });
  assert.equal(await text(stuck.stdout), "begun\n");
  await assert.rejects(stuck.done, /Failed to run: sh .*: nothing has gone through it for 0.15 s/);
  const slow = tools.pipe(["sh", "-c", "for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 0.05; done"], { stallMs: 200 });
  assert.equal(await text(slow.stdout), "1\n2\n3\n4\n5\n6\n7\n8\n");
  await slow.done;
});

Deno.test("pipe() keeps what a tool wrote until it is read, however long it has ended", async () => {
  for (const bytes of [1, 3000, 65536]) {
    const { stdout, done } = tools.pipe(["head", "-c", String(bytes), "/dev/zero"]);
    await done;
    assert.equal((await text(stdout)).length, bytes);
  }
});

Deno.test("pipe() ends a tool whose output nobody wants any more", async () => {
  const { stdout, done } = tools.pipe(["yes"]);
  stdout.destroy();
  await assert.rejects(done, CommandError);
});

Deno.test("pipe() streams through a tool and reports its end", async () => {
  const { stdout, done } = tools.pipe(["tr", "a-z", "A-Z"], {
    stdin: Readable.from([Buffer.from("ab"), Buffer.from("cd")]),
  });
  const chunks: Uint8Array[] = [];
  for await (const chunk of stdout) chunks.push(chunk);
  await done;
  assert.equal(Buffer.concat(chunks).toString(), "ABCD");
  const failing = tools.pipe(["sh", "-c", "echo no >&2; exit 9"]);
  failing.stdout.resume();
  await assert.rejects(failing.done, /exit status 9 \(no\)/);
});

Deno.test("a tool may end before what it is given does; a source that breaks off ends the tool", async () => {
  const silent = new PassThrough();
  silent.write("one, and then nothing");
  await tools.pipe(["head", "-c", "3"], { stdin: silent }).done;
  const broken = new PassThrough();
  broken.write("a part");
  const { done } = tools.pipe(["cat"], { stdin: broken });
  broken.destroy();
  await assert.rejects(done);
  // The source's error may have the same code as a broken pipe.
  const reading = Object.assign(new Error("the peer is gone"), { code: "EPIPE" });
  const failing = new PassThrough();
  failing.write("a part");
  const fed = tools.pipe(["cat"], { stdin: failing });
  failing.destroy(reading);
  await assert.rejects(fed.done, reading);
});

Deno.test("a tool that fails while its source is still being read says so itself, at any moment", async () => {
  const refused = async (script: string) => {
    const { stdout: stdin, done } = tools.pipe(["head", "-c", "20000000", "/dev/zero"]);
    const source = done.catch(() => {}); // ends because its reader has gone
    const tool = tools.pipe(["sh", "-c", `${script}; echo refused >&2; exit 3`], { stdin });
    await assert.rejects(tool.done, (error: CommandError) => error.code === 3 && /\(refused\)/.test(error.message));
    await source;
  };
  for (let round = 0; round < 10; round++) {
    const taken = `head -c ${round * 12_000} >/dev/null`;
    await Promise.all([":", "exec <&-", taken].map(refused));
  }
});

Deno.test("a loop device shows its file, grows with it and goes", () =>
  scratch(async (directory) => {
    const file = join(directory, "disk.img");
    await writeFile(file, "");
    await truncate(file, 8 * 1024 * 1024);
    const device = await host.loops.attach(file, { directIo: true });
    try {
      assert.deepEqual(await host.loops.find(file), [device]);
      await truncate(file, 16 * 1024 * 1024);
      await host.loops.refresh(device);
      assert.equal(
        (await host.confined({ devices: [device] }).run(["blockdev", "--getsize64", device])).stdout.trim(),
        String(16 * 1024 * 1024),
      );
    } finally {
      await host.loops.detach(device);
    }
    assert.deepEqual(await host.loops.find(file), []);
  }));

Deno.test("a loop device that a copy of its mount keeps is detached when that is gone", () =>
  scratch(async (directory) => {
    const file = join(directory, "disk.img"), target = join(directory, "mounted");
    await writeFile(file, "");
    await truncate(file, 8 * 1024 * 1024);
    await mkdir(target);
    const device = await host.loops.attach(file);
    await host.confined({ devices: [device] }).run(["mkfs.ext4", "-q", device]);
    await host.mounts.mount(device, target, "ext4");
    // Like any process that is just getting a mount namespace.
    const keeper = spawn("unshare", ["--mount", "--propagation", "private", "sh", "-c", "echo; cat"], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const ended = new Promise((resolve) => keeper.once("exit", resolve));
    await new Promise((resolve) => keeper.stdout.once("data", resolve));
    await host.mounts.unmount(target);
    const order: string[] = [];
    const detached = host.loops.detach(device).then(() => order.push("detached"));
    assert.deepEqual(await host.loops.find(file), [device]);
    order.push("released");
    keeper.stdin.end();
    await ended;
    await detached;
    assert.deepEqual(order, ["released", "detached"]);
    assert.deepEqual(await host.loops.find(file), []);
  }));

Deno.test("mount, at and unmount agree; unmounting what is not mounted is no error", () =>
  scratch(async (directory) => {
    const target = join(directory, "a b");
    await mkdir(target);
    await host.mounts.mount("none", target, "tmpfs", ["nosuid", "size=1m"]);
    try {
      const entry = await host.mounts.at(target);
      assert.equal(entry?.type, "tmpfs");
      assert.ok(entry?.options.includes("nosuid"));
      assert.equal(await canIdmap(target), true);
    } finally {
      await host.mounts.unmount(target);
    }
    assert.equal(await host.mounts.at(target), undefined);
    await host.mounts.unmount(target);
    await host.mounts.unmount(join(directory, "missing"));
  }));

Deno.test("parseMountInfo() unescapes, and refuses nonsense", () => {
  const [entry] = parseMountInfo(
    String.raw`36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue` + "\n",
  );
  assert.equal(entry?.target, "/mnt 2");
  assert.deepEqual([entry?.type, entry?.source, entry?.id], ["ext3", "/dev/root", 36]);
  assert.throws(() => parseMountInfo("nonsense\n"), /Cannot read a line of mountinfo/);
});

Deno.test("parseSubIds() takes root's lines only and no impossible range", () => {
  const text = "someone:1:2\nroot:100000:65536\n0:200000:10\nroot:4294967290:100\nroot:x:y\n# root:1:1\n";
  assert.deepEqual(parseSubIds(text), [{ start: 100000, count: 65536 }, { start: 200000, count: 10 }]);
  assert.deepEqual(rootRanges(text, "root:5:1").gid, [{ start: 5, count: 1 }]);
  // As in LXD: if one of the files has no range for root, neither counts.
  const default_ = [{ start: 1_000_000, count: 1_000_000_000 }];
  assert.deepEqual(rootRanges(text, "someone:1:2"), { uid: default_, gid: default_ });
});
