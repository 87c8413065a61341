/** Exec over long times and in large numbers. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { command } from "../support/command.ts";
import { Daemon, executable } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";
import { RawClient } from "../support/raw.ts";

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function memory(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) * 1024;
}

/** User and system time of a process, in ms. @see proc_pid_stat(5): in ticks of 10 ms */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

Deno.test("exec over time and in numbers", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("launch", "bb", "c1");
  const raw = new RawClient(daemon.directory);
  const run = (...argv: string[]) => command([executable, "exec", "c1", "--", ...argv], { env: daemon.environment });

  const commands = Number(process.env.LIDO_SOAK_COMMANDS ?? 1_200);
  await t.step(`${commands} commands, 20 at a time: each returns with its own code and output`, async () => {
    let next = 0;
    const worker = async () => {
      while (next < commands) {
        const number = next++;
        const { out, code } = await run("sh", "-c", `echo ${number}; exit ${number % 100}`);
        assert.deepEqual([out, code], [`${number}\n`, number % 100]);
      }
    };
    await Promise.all(Array.from({ length: 20 }, worker));
  });

  await t.step(
    "a minute in which nobody reads, while 10 GB want out of each of 32: under 1 MiB of memory each",
    async () => {
      const count = 32;
      const open = async () => {
        const execs = await Promise.all(
          Array.from({ length: count }, () => raw.exec("c1", ["sh", "-c", "head -c 10000000000 /dev/zero"])),
        );
        const sockets = await Promise.all(execs.map(async (exec) => {
          const own = await raw.sockets(exec);
          for (const socket of Object.values(own)) socket.pause();
          return own;
        }));
        return { execs, sockets };
      };
      const close = async ({ execs, sockets }: Awaited<ReturnType<typeof open>>) => {
        for (const own of sockets) for (const socket of Object.values(own)) socket.terminate();
        await Promise.all(execs.map(({ id }) => raw.wait(id)));
      };
      // Memory allocated in a first round, above all the buffers of Bun, belongs to the daemon and not to a session.
      const first = await open();
      await pause(1_000);
      await close(first);
      const before = memory(daemon.pid);
      const sessions = await open();
      let most = 0;
      for (let second = 0; second < 60; second++) {
        await pause(1_000);
        most = Math.max(most, memory(daemon.pid) - before);
      }
      const cpu = cpuMs(daemon.pid);
      await pause(1_000);
      const used = cpuMs(daemon.pid) - cpu;
      console.log(`${(most / count / 1024).toFixed(0)} KiB a session; ${used} ms of CPU in a second`);
      assert.ok(most / count < 1 << 20, `${most} bytes for ${count} sessions`);
      assert.ok(used < 100, `${used} ms of CPU in a second in which nothing moves`);
      await close(sessions);
    },
  );

  await t.step("a reader that comes back gets every byte", async () => {
    const bytes = 50_000_000;
    const exec = await raw.exec("c1", ["sh", "-c", `head -c ${bytes} /dev/zero`]);
    const sockets = await raw.sockets(exec);
    let got = 0;
    const end = new Promise<void>((resolve) =>
      sockets["1"]!.on("message", (data, isBinary) => {
        if (isBinary) got += (data as Uint8Array).length;
        else resolve();
      })
    );
    for (const ms of [500, 1_000, 2_000]) {
      sockets["1"]!.pause();
      await pause(ms);
      sockets["1"]!.resume();
      await pause(5);
    }
    await end;
    assert.equal(got, bytes);
    assert.equal((await raw.wait(exec.id)).metadata.return, 0);
  });
});
