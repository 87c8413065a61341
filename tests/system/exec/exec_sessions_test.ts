/** Commands that keep running without their client. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, type Lido } from "../../../mod.ts";
import type { ExecSession } from "../../../api/types.ts";
import { Daemon, executable } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { Terminal } from "../../support/terminal.ts";

Deno.test({
  name: "detachable exec sessions",
  sanitizeOps: false, // node-pty keeps its own threads and handles
  sanitizeResources: false,
  fn: async (t) => {
    await using daemon = await Daemon.start();
    await daemon.furnish(await busyboxImage());
    await daemon.ok("launch", "bb", "c1");
    const sessions = async () => await daemon.query("/1.0/exec-sessions?recursion=1") as ExecSession[];
    const library = (): Promise<Lido> => connect({ kind: "unix", socket: `${daemon.directory}/unix.socket` });
    const detach = (...argv: string[]) => daemon.ok("exec", "--detach", "c1", "--", ...argv);
    /** Waits until no process of the container has these words: polled, because there is no event for a command's children. */
    const gone = async (words: string) => {
      const outcome = await daemon.lido([
        "exec",
        "c1",
        "--",
        "timeout",
        "10",
        "sh",
        "-c",
        `while ps -o args | grep -v "while ps" | grep -q "[${words[0]}]${words.slice(1)}"; do usleep 20000; done`,
      ]);
      assert.equal(outcome.code, 0, `"${words}" still runs`);
    };

    await t.step("--detach prints an id; --attach gives output, streams apart, and exit code, once", async () => {
      const id = await detach("sh", "-c", "echo out; echo err >&2; exit 5");
      assert.match(id, /^[0-9a-f]{12}$/);
      const { out, err, code } = await daemon.lido(["exec", "--attach", id]);
      assert.deepEqual([out, err, code], ["out\n", "err\n", 5]);
      await daemon.fails(["exec", "--attach", id], /Session not found: ".*"/);
      assert.deepEqual(await sessions(), []);
    });

    await t.step("one that cannot be started leaves no session", async () => {
      const { err, code } = await daemon.lido(["exec", "--detach", "c1", "--", "nosuch"]);
      assert.deepEqual([err, code], ["Error: Command not found\n", 127]);
      const attached = await daemon.lido(["exec", "--detachable", "c1", "--", "nosuch"]);
      assert.deepEqual([attached.err, attached.code], ["Error: Command not found\n", 127]);
      assert.deepEqual(await sessions(), []);
    });

    await t.step("what runs is listed; a detached command without a terminal has no input", async () => {
      const id = await detach("sh", "-c", "cat; echo at its end; exec sleep 1000");
      const [session] = await sessions();
      assert.deepEqual(
        [session?.id, session?.instance, session?.status, session?.attached, session?.return],
        [id, "c1", "Running", false, null],
      );
      assert.match(await daemon.ok("exec", "--list"), new RegExp(`${id} \\| c1 .*DETACHED`));
      assert.equal(await daemon.ok("exec", "--list", "nosuch", "-f", "csv"), "");
      await using lido = await library();
      const process = await lido.attach(id);
      const reader = process.stdout.getReader();
      assert.equal(new TextDecoder().decode((await reader.read()).value), "at its end\n");
      assert.equal(await process.detach(), id);
      await assert.rejects(process.status, /Detached from session/);
      await daemon.ok("query", "-X", "DELETE", `/1.0/exec-sessions/${id}`);
      assert.deepEqual(await sessions(), []);
      await gone("sleep 1000");
    });

    await t.step("the last MiB comes back, to the byte", async () => {
      const id = await detach("sh", "-c", "seq 1 400000; exit 9");
      const whole = Buffer.from(Array.from({ length: 400_000 }, (_, index) => `${index + 1}\n`).join(""));
      // Wait for the session's end, by which the command's end is known.
      for (let state = ""; state !== "Ended";) state = (await sessions())[0]!.status;
      const { bytes, code } = await daemon.lido(["exec", "--attach", id]);
      assert.equal(code, 9);
      assert.equal(bytes.length, 1 << 20);
      assert.ok(whole.subarray(whole.length - bytes.length).equals(bytes));
    });

    await t.step("a shell on a terminal: left by Ctrl-a q, come back to, with what it showed", async () => {
      using first = new Terminal([executable, "exec", "--detachable", "c1", "--env", "PS1=in> ", "--", "sh"], {
        ...daemon.environment,
      });
      await first.sees(/press: <ctrl>\+a q\r\n/);
      await first.sees(/in> $/);
      first.type("x=kept; echo first $x\n");
      await first.sees(/first kept\r\nin> $/);
      first.type("\x01q");
      await first.sees(/Detached from session [0-9a-f]{12}; come back with: lido exec --attach /);
      assert.equal(await first.ended, 0);
      const [session] = await sessions();
      assert.deepEqual([session?.status, session?.attached, session?.interactive], ["Running", false, true]);
      using second = new Terminal([executable, "exec", "--attach", session!.id], { ...daemon.environment });
      await second.sees(/first kept\r\nin> /);
      second.type("echo again $x\n");
      await second.sees(/again kept\r\n/);
      second.type("exit 9\n");
      assert.equal(await second.ended, 9);
      assert.deepEqual(await sessions(), []);
    });

    await t.step("a client that is killed loses nothing; the next one gets it all", async () => {
      const child = spawn(executable, [
        "exec",
        "--detachable",
        "c1",
        "--",
        "sh",
        "-c",
        "echo up; sleep 1; echo on; exit 4",
      ], {
        env: { ...process.env, ...daemon.environment },
        stdio: ["ignore", "pipe", "inherit"],
      });
      await once(child.stdout!, "data");
      process.kill(child.pid!, "SIGKILL");
      await once(child, "exit");
      const [session] = await sessions();
      const { out, code } = await daemon.lido(["exec", "--attach", session!.id]);
      assert.deepEqual([out, code], ["up\non\n", 4]);
    });

    await t.step("the terminal of a detachable client is closed: its command goes on", async () => {
      const child = spawn(executable, ["exec", "--detachable", "c1", "--", "sh", "-c", "echo up; exec sleep 1001"], {
        env: { ...process.env, ...daemon.environment },
        stdio: ["ignore", "pipe", "inherit"],
      });
      await once(child.stdout!, "data");
      process.kill(child.pid!, "SIGHUP");
      assert.deepEqual(await once(child, "exit"), [129, null]);
      const [session] = await sessions();
      assert.equal(session?.status, "Running");
      await daemon.ok("query", "-X", "DELETE", `/1.0/exec-sessions/${session!.id}`);
    });

    await t.step("one that comes takes the session from one that is there", async () => {
      const id = await detach("sh", "-c", "echo up; exec sleep 1002");
      await using lido = await library();
      const first = await lido.attach(id);
      await first.stdout.getReader().read();
      const second = await lido.attach(id);
      const reader = second.stdout.getReader();
      await reader.read();
      await assert.rejects(first.status, /was taken over by another client/);
      second.kill(9);
      assert.equal((await second.status).code, 137);
    });

    await t.step("a second TERM ends the command of a detachable client too", async () => {
      const child = spawn(
        executable,
        [
          "exec",
          "--detachable",
          "c1",
          "--",
          "sh",
          "-c",
          "trap 'echo got it' TERM; echo up; while :; do sleep 0.1; done",
        ],
        { env: { ...process.env, ...daemon.environment }, stdio: ["ignore", "pipe", "inherit"] },
      );
      await once(child.stdout!, "data");
      process.kill(child.pid!, "SIGTERM");
      await once(child.stdout!, "data");
      await new Promise((resolve) => setTimeout(resolve, 300)); // two signals at once count as one
      process.kill(child.pid!, "SIGTERM");
      assert.deepEqual(await once(child, "exit"), [143, null]);
      await gone("echo got it");
    });

    for (const end of ["terminate", "kill"] as const) {
      await t.step(`the daemon's end (${end}) ends sessions and says so; no command is left`, async () => {
        for (const { id } of await sessions()) await daemon.ok("query", "-X", "DELETE", `/1.0/exec-sessions/${id}`);
        const id = await detach("sleep", "1004");
        await using lido = await library();
        const ordinary = await lido.instance("c1").exec(["sh", "-c", "echo up; exec sleep 1005"]);
        await ordinary.stdout.getReader().read();
        await daemon[end]();
        await assert.rejects(ordinary.status);
        await daemon.up();
        assert.deepEqual((await sessions()).map(({ status }) => status), ["Lost"]);
        await daemon.fails(
          ["exec", "--attach", id],
          /Session ".*" ended when the daemon stopped: its command was killed/,
        );
        await gone("sleep 100[45]");
        await daemon.ok("query", "-X", "DELETE", `/1.0/exec-sessions/${id}`);
        assert.deepEqual(await sessions(), []);
      });
    }

    await t.step("flags that contradict each other", async () => {
      await daemon.fails(["exec", "--list", "--attach", "x"], /You can't pass --list and --attach at the same time/);
      await daemon.fails(["exec", "--attach", "x", "c1"], /--attach takes no instance/);
      await daemon.fails(["exec", "--attach", "../x"], /Session not found: "..\/x"/);
    });
  },
});
