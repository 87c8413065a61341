import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import process from "node:process";
import { ExitTracer } from "./exit_tracer.ts";
import { Poller } from "../poll/poll.ts";
import { closeFd, openPidfd } from "./process.ts";

/** The init of a pid namespace, whose parent reaps it at once, as a host's init does. */
async function initOf(script: string, more: (pid: number) => Promise<void> = () => Promise.resolve()) {
  const poller = new Poller(), tracer = new ExitTracer();
  const words = [
    "--pid",
    "--fork",
    "--mount",
    "--mount-proc",
    "/bin/busybox",
    "sh",
    "-c",
    `echo up; read x; ${script}`,
  ];
  const parent = spawn("unshare", words, { stdio: ["pipe", "pipe", "inherit"] });
  const parentEnded = new Promise((resolve) => parent.on("exit", resolve));
  await new Promise((resolve) => parent.stdout.once("data", resolve));
  const pid = Number(readFileSync(`/proc/${parent.pid}/task/${parent.pid}/children`, "utf8"));
  const pidfd = openPidfd(pid);
  const watch = poller.watch(pidfd);
  try {
    tracer.start([pid]);
    while (!/^TracerPid:\t[1-9]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const ended = new Promise<void>((resolve) => watch.arm("in", resolve));
    parent.stdin.end("go\n");
    await more(pid);
    await ended;
    return await tracer.ended(pid);
  } finally {
    watch.close();
    closeFd(pidfd);
    tracer.close();
    await poller.close();
    await parentEnded;
  }
}

Deno.test("ExitTracer tells a reboot from a poweroff and from a kill, whoever reaps the init", async () => {
  for (let time = 0; time < 2; time++) {
    assert.deepEqual(await initOf("busybox reboot -f; sleep 9"), { signal: 1 });
    assert.deepEqual(await initOf("busybox poweroff -f; sleep 9"), { signal: 2 });
  }
  assert.deepEqual(await initOf("exit 7"), { code: 7 });
  assert.deepEqual(await initOf("sleep 9", async (pid) => void process.kill(pid, "SIGKILL")), { signal: 9 });
});

Deno.test("ExitTracer passes signals on, and a stop is a stop", async () => {
  // The second signal is sent only after the first has arrived: the process sees the signals that are passed on.
  const status = await initOf('trap "exit 5" USR1; while :; do sleep 0.01; done', async (pid) => {
    const state = () => /^State:\t(\w)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1];
    const until = async (isWanted: () => boolean) => {
      while (!isWanted()) await new Promise((resolve) => setTimeout(resolve, 1));
    };
    await until(() => /^SigCgt:\t\w*[2367abef]\w\w$/m.test(readFileSync(`/proc/${pid}/status`, "utf8")));
    process.kill(pid, "SIGSTOP");
    await until(() => state() === "T" || state() === "t");
    process.kill(pid, "SIGCONT");
    await until(() => state() !== "T" && state() !== "t");
    process.kill(pid, "SIGUSR1");
  });
  assert.deepEqual(status, { code: 5 });
});
