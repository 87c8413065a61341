import assert from "node:assert/strict";
import { Poller } from "../poll/poll.ts";
import {
  again,
  closeFd,
  isChild,
  makePipe,
  openPidfd,
  openPty,
  peek,
  readFd,
  sendSignal,
  setNonBlocking,
  spawnProcess,
  waitPid,
  writeFd,
} from "./process.ts";

const environment = { PATH: "/usr/bin:/bin" };
const decoder = new TextDecoder();

async function ready(poller: Poller, fd: number, interest: "in" | "out" = "in"): Promise<void> {
  const watch = poller.watch(fd);
  await new Promise<void>((resolve) => watch.arm(interest, resolve));
  watch.close();
}

Deno.test("a process writes to its pipe, ends, and its status is exact", async () => {
  const poller = new Poller();
  const output = makePipe(), input = makePipe();
  const pid = spawnProcess({
    file: "/bin/sh",
    argv: ["sh", "-c", "cat; exit 42"],
    environment,
    stdio: { stdin: input.read, stdout: output.write, stderr: output.write },
  });
  closeFd(input.read);
  closeFd(output.write);
  const pidfd = openPidfd(pid);
  assert.equal(isChild(pid), true);
  assert.equal(waitPid(pid), undefined);
  writeFd(input.write, new TextEncoder().encode("hello"));
  closeFd(input.write);
  await ready(poller, output.read);
  const buffer = new Uint8Array(100);
  assert.equal(decoder.decode(buffer.subarray(0, Number(readFd(output.read, buffer)))), "hello");
  await ready(poller, pidfd);
  assert.deepEqual(waitPid(pid), { code: 42 });
  assert.equal(sendSignal(pidfd, 9), false);
  assert.equal(peek(output.read).hungUp, true);
  for (const fd of [pidfd, output.read]) closeFd(fd);
  assert.equal(poller.size, 0);
  await poller.close();
});

Deno.test("death by a signal is told as such", async () => {
  const poller = new Poller();
  const pty = openPty({ width: 91, height: 33 });
  const none = { stdin: -1, stdout: -1, stderr: -1 };
  const pid = spawnProcess({
    file: "/bin/sh",
    argv: ["sh", "-c", "stty size; kill -SEGV $$"],
    environment,
    stdio: none,
    terminal: pty.path,
  });
  const pidfd = openPidfd(pid);
  await ready(poller, pidfd);
  assert.deepEqual(waitPid(pid), { signal: 11 });
  const buffer = new Uint8Array(100);
  assert.equal(decoder.decode(buffer.subarray(0, Number(readFd(pty.master, buffer)))), "33 91\r\n");
  assert.equal(readFd(pty.master, buffer), 0);
  for (const fd of [pidfd, pty.master]) closeFd(fd);
  await poller.close();
});

Deno.test("a watch tells of room to write, and of nothing once it is closed", async () => {
  const poller = new Poller();
  const pipe = makePipe({ sizeBytes: 4096 });
  setNonBlocking(pipe.write);
  while (writeFd(pipe.write, new Uint8Array(4096)) !== again);
  const silent = poller.watch(pipe.read);
  silent.arm("in", () => assert.fail("told after close"));
  silent.close();
  const writable = ready(poller, pipe.write, "out");
  readFd(pipe.read, new Uint8Array(8192));
  await writable;
  for (const fd of [pipe.read, pipe.write]) closeFd(fd);
  await poller.close();
});
