/** `lido exec` and the terminal, in real containers. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { connect } from "../../../mod.ts";
import { Daemon, executable } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { Terminal } from "../../support/terminal.ts";

const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

Deno.test({
  name: "exec in a real container",
  // node-pty keeps its own threads and handles.
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async (t) => {
    await using daemon = await Daemon.start();
    await daemon.furnish(await busyboxImage());
    await daemon.ok("launch", "bb", "c1");
    const exec = (argv: readonly string[], input?: Uint8Array | string) =>
      daemon.lido(["exec", "c1", "--", ...argv], input === undefined ? {} : { input });

    await t.step("exit codes and signals", async () => {
      assert.equal((await exec(["true"])).code, 0);
      assert.equal((await exec(["sh", "-c", "exit 42"])).code, 42);
      assert.equal((await exec(["sh", "-c", "exit 255"])).code, 255);
      assert.equal((await exec(["sh", "-c", "kill -9 $$"])).code, 137);
      assert.equal((await exec(["sh", "-c", "kill -15 $$"])).code, 143);
      const missing = await exec(["nosuch"]);
      assert.deepEqual([missing.code, missing.err], [127, "Error: Command not found\n"]);
      const unnamed = await exec(["", "a"]);
      assert.deepEqual([unnamed.code, unnamed.err], [127, "Error: Command not found\n"]);
      const plain = await exec(["/etc/passwd"]);
      assert.deepEqual([plain.code, plain.err], [126, "Error: Command not executable\n"]);
    });

    await t.step("what the kernel does not execute says why; a script without #! is the shell's", async () => {
      const files = ["#!/opt/none -x\n", "#!/bin/sh\r\n", "echo $0 $1\n", "\0\n"];
      for (const [name, content] of files.entries()) await exec(["sh", "-c", `cat > /root/${name}`], content);
      await exec(["sh", "-c", "chmod +x /root/?"]);
      const ends = async (argv: string[]) => {
        const { code, out, err } = await exec(argv);
        return [code, out, err];
      };
      const missing = 'Error: Command not found: the interpreter "/opt/none" of "/root/0" does not exist\n';
      assert.deepEqual(await ends(["/root/0"]), [127, "", missing]);
      assert.match((await ends(["/root/1"])).join(), /^127,,.*"\/bin\/sh\\r" of "\/root\/1" does not exist.*CR LF/);
      assert.deepEqual(await ends(["/root/2", "a b"]), [0, "/root/2 a b\n", ""]);
      assert.match((await ends(["/root/3"])).join(), /^126,,Error: Command not executable: "\/root\/3" is no program/);
      const detached = await daemon.lido(["exec", "--detach", "c1", "--", "/root/0"]);
      assert.deepEqual([detached.code, detached.err], [127, missing]);
      using terminal = new Terminal([executable, "exec", "c1", "--", "/root/0"], daemon.environment);
      await terminal.sees(/the interpreter "\/opt\/none"/);
      assert.equal(await terminal.ended, 127);
    });

    await t.step("the streams can be opened by name, by the user that the command is", async () => {
      const script = "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr";
      for (const flags of [[], ["--user", "1000", "--group", "1001"], ["--wait-output"], ["--detachable"]]) {
        const { code, out, err } = await daemon.lido(["exec", "c1", ...flags, "--", "sh", "-c", script], {
          input: "in\n",
        });
        assert.deepEqual([code, out, err], [0, "in\nout\n", "err\n"], flags.join(" "));
      }
      const body = { command: ["sh", "-c", script], user: 1000, "record-output": true };
      const answer = await daemon.ok(
        "query",
        "--wait",
        "-X",
        "POST",
        "-d",
        JSON.stringify(body),
        "/1.0/instances/c1/exec",
      );
      const { output, return: code } = JSON.parse(answer).metadata;
      assert.deepEqual([
        code,
        await daemon.ok("query", "--raw", output[1]),
        await daemon.ok("query", "--raw", output[2]),
      ], [
        0,
        "out",
        "err",
      ]);
    });

    await t.step("the library's streams do not wait for each other", async () => {
      await using lido = await connect({ kind: "unix", socket: `${daemon.directory}/unix.socket` });
      const run = (script: string) => lido.instance("c1").exec(["sh", "-c", script]);
      const small = await run("echo e >&2; echo o; echo e >&2; exit 3");
      assert.equal(await new Response(small.stdout).text(), "o\n");
      assert.deepEqual(await small.status, { code: 3, success: false });
      assert.equal(await new Response(small.stderr).text(), "e\ne\n");
      const large = await run("head -c 5000000 /dev/zero >&2; echo o");
      assert.equal(await new Response(large.stdout).text(), "o\n");
      assert.deepEqual(await large.status, { code: 0, success: true });
      await assert.rejects(new Response(large.stderr).text(), /Lost \d+ bytes of stderr/);
    });

    await t.step("100 MB through stdout, and through stdin and back", async () => {
      const made = await exec(["sh", "-c", "head -c 100000000 /dev/urandom | tee /root/data; exit 5"]);
      assert.deepEqual([made.code, made.bytes.length], [5, 100_000_000]);
      const sum = await exec(["sha256sum", "/root/data"]);
      assert.equal(sum.out.split(" ")[0], digest(made.bytes));
      const back = await exec(["cat"], made.bytes);
      assert.deepEqual([back.code, digest(back.bytes)], [0, digest(made.bytes)]);
    });

    await t.step("stdin's end reaches the command, once, and output comes after it", async () => {
      const counted = await exec(["sh", "-c", "wc -c; echo done"], randomBytes(300_000));
      assert.deepEqual([counted.out, counted.code], ["300000\ndone\n", 0]);
      const empty = await exec(["cat"], "");
      assert.deepEqual([empty.out, empty.code], ["", 0]);
    });

    await t.step(
      "a background process does not keep exec from returning, and loses nothing of the command's",
      async () => {
        const started = await exec(["sh", "-c", "sleep 1000 & head -c 200000 /dev/zero; exit 3"]);
        assert.deepEqual([started.bytes.length, started.code], [200_000, 3]);
        assert.ok(started.ms < 10_000, `took ${started.ms} ms`);
        await exec(["killall", "sleep"]);
      },
    );

    await t.step(
      "a shell on a terminal: echo, window size, Ctrl-C, exit code, and the terminal as it was",
      async () => {
        using terminal = new Terminal(["/bin/sh"], { ...daemon.environment, PS1: "outer> " });
        await terminal.sees(/outer> $/);
        terminal.type("stty -g > $LIDO_DIR/before; stty -g\n");
        await terminal.sees(/outer> $/);
        terminal.type(`${executable} exec c1 --env PS1='inner> ' -- sh\n`);
        await terminal.sees(/inner> $/);
        terminal.type("tty; stty size\n");
        await terminal.sees(/\/dev\/pts\/\d+\r\n33 91\r\ninner> $/);
        terminal.resize(120, 44);
        terminal.type("sleep 0.2; stty size\n");
        await terminal.sees(/44 120\r\ninner> $/);
        // Wait until it runs: before, the shell's line editor handles Ctrl-C.
        terminal.type("sh -c 'echo it is up; exec sleep 1000'\n");
        await terminal.sees(/\r\nit is up\r\n/);
        terminal.type("\x03");
        await terminal.sees(/\^C\r\ninner> $/);
        terminal.type("exit 7\n");
        await terminal.sees(/outer> $/);
        terminal.type('echo "rc=$?"; test "$(stty -g)" = "$(cat $LIDO_DIR/before)" && echo as before\n');
        await terminal.sees(/rc=7\r\nas before\r\n/);
        terminal.type("exit\n");
        assert.equal(await terminal.ended, 0);
      },
    );

    await t.step("who runs it, where, and with which environment", async () => {
      const run = async (...argv: string[]) => (await daemon.lido(["exec", "c1", ...argv])).out;
      assert.equal(await run("--", "sh", "-c", "echo $HOME $USER $LANG; pwd"), "/root root C.UTF-8\n/root\n");
      assert.equal(await run("--user", "1000", "--cwd", "/tmp", "--", "sh", "-c", "id -u; pwd"), "1000\n/tmp\n");
      assert.equal(await run("--user", "user", "--", "sh", "-c", "id -un; echo $HOME"), "user\n/home/user\n");
      assert.equal(await run("--env", "A=b c", "--", "sh", "-c", "echo $A"), "b c\n");
      await daemon.fails(["exec", "c1", "--user", "nobody", "--", "true"], /User "nobody" not found/);
      await daemon.fails(["exec", "nosuch", "--", "true"], /Instance not found/);
    });
  },
});
