import assert from "node:assert/strict";
import process from "node:process";
import { type ExitSource, ExitWatch } from "./exit_watch.ts";
import { Poller } from "../poll/poll.ts";
import { again, closeFd, makePipe, openPidfd, readFd, spawnProcess, waitPid, writeFd } from "./process.ts";

async function readable(poller: Poller, fd: number): Promise<void> {
  const watch = poller.watch(fd);
  await new Promise<void>((resolve) => watch.arm("in", resolve));
  watch.close();
}

/** A grandchild ends as `end` says; its parent reaps it before or after its status is requested. */
async function endOfGrandchild(source: ExitSource, end: string, isReaped: boolean) {
  const poller = new Poller();
  const input = makePipe(), output = makePipe();
  const child = spawnProcess({
    file: "/bin/bash",
    // A shell reaps its children while it waits; the sleep that it becomes never does.
    argv: ["bash", "-c", `sh -c 'echo $$; read x; ${end}' <&0 & ${isReaped ? "wait" : "exec sleep 1000"}`],
    environment: { PATH: "/usr/bin:/bin" },
    stdio: { stdin: input.read, stdout: output.write, stderr: output.write },
  });
  const buffer = new Uint8Array(100);
  await readable(poller, output.read);
  const length = readFd(output.read, buffer);
  assert.ok(length !== again);
  const pid = Number(new TextDecoder().decode(buffer.subarray(0, Number(length))));
  const watch = ExitWatch.open(pid, source);
  const pidfd = openPidfd(pid), childPidfd = openPidfd(child);
  assert.equal(watch.status(), undefined);
  writeFd(input.write, new TextEncoder().encode("go\n"));
  await readable(poller, pidfd);
  if (isReaped) await readable(poller, childPidfd);
  const status = watch.status();
  watch.close();
  if (!isReaped) process.kill(child, "SIGKILL");
  await readable(poller, childPidfd);
  waitPid(child);
  for (const fd of [pidfd, childPidfd, input.read, input.write, output.read, output.write]) closeFd(fd);
  await poller.close();
  return status;
}

for (const source of ["pidfd", "connector"] as const) {
  Deno.test(`ExitWatch tells how a process ended that is another's child, by its ${source}`, async () => {
    for (const isReaped of [true, false]) {
      assert.deepEqual(await endOfGrandchild(source, "exit 7", isReaped), { code: 7 });
      assert.deepEqual(await endOfGrandchild(source, "kill -HUP $$", isReaped), { signal: 1 });
    }
  });
}
