/** The client of `lido exec` with shells, pipes, terminals and signals. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { command } from "../../support/command.ts";
import { Daemon, executable } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { Terminal } from "../../support/terminal.ts";

Deno.test({
  name: "the client of exec",
  sanitizeOps: false, // node-pty keeps its own threads and handles
  sanitizeResources: false,
  fn: async (t) => {
    await using daemon = await Daemon.start();
    await daemon.furnish(await busyboxImage());
    await daemon.ok("launch", "bb", "c1");
    const env = { ...daemon.environment, LIDO: executable };
    /** Runs a shell line with $LIDO for the client. */
    const shell = (line: string) => command(["bash", "-c", line], { env, timeoutMs: 20_000 });
    // Tests that run in a shell's background begin with INT and QUIT ignored, and the client would leave them so.
    const client = (...argv: string[]) =>
      spawn("env", ["--default-signal", executable, "exec", ...argv], {
        env: { ...process.env, ...env },
        stdio: ["pipe", "pipe", "pipe"],
      });
    /** The client's next line, or its exit code if it has ended. */
    const line = async (child: ChildProcess) =>
      String((await Promise.race([once(child.stdout!, "data"), once(child, "exit")]))[0]).trim();

    /** Waits until a second TERM counts as another one. */
    const apart = () => new Promise((resolve) => setTimeout(resolve, 300));

    await t.step("stdin and stdout by file, pipe, /dev/null and closed", async () => {
      const work = daemon.directory;
      const { out, code } = await shell(`
        set -eu
        head -c 3000000 /dev/urandom > ${work}/in
        $LIDO exec c1 -- cat < ${work}/in > ${work}/out; cmp ${work}/in ${work}/out
        $LIDO exec c1 -- cat < ${work}/in | cmp - ${work}/in
        cat ${work}/in | $LIDO exec c1 -- sh -c 'cat >&2' 2> ${work}/out > /dev/null; cmp ${work}/in ${work}/out
        $LIDO exec c1 -- wc -c < /dev/null
        $LIDO exec -n c1 -- wc -c < ${work}/in
        echo appended > ${work}/log; $LIDO exec c1 -- echo more >> ${work}/log; cat ${work}/log
        $LIDO exec c1 -- sh -c 'echo o; echo e >&2' 2>&1 | sort
        $LIDO exec c1 -- wc -c <&-
        rm ${work}/in ${work}/out ${work}/log
      `);
      assert.equal(out, "0\n0\nappended\nmore\ne\no\n0\n");
      assert.equal(code, 0);
    });

    await t.step("stdin is read from where it stands, and consumed, as by every program", async () => {
      const work = daemon.directory;
      const { out, err, code } = await shell(`
        set -u
        printf 'a\\nb\\nc\\n' > ${work}/in
        echo "#1"; { $LIDO exec c1 -- cat; cat; } < ${work}/in
        echo "#2"; { read first; $LIDO exec c1 -- cat; cat; } < ${work}/in
        echo "#3"; { $LIDO exec -n c1 -- true; cat; } < ${work}/in
        echo "#4"; $LIDO exec c1 -- head -c 3 < /dev/zero | wc -c
        echo "#5"; $LIDO exec c1 -- wc -c < ${work} 2>&1; echo "rc $?"
        echo "#6"; truncate -s 3M ${work}/disk; loop=$(losetup -f --show ${work}/disk); $LIDO exec c1 -- wc -c < $loop; losetup -d $loop
        echo "#7"; { $LIDO storage volume create fast v > /dev/null; read first; $LIDO storage volume file push - fast v/x; cat; } < ${work}/in
        $LIDO storage volume file pull fast v/x -; $LIDO storage volume delete fast v > /dev/null
        echo "#8"; { echo description: first; echo; $LIDO profile show default | grep -v ^description; } > ${work}/in
        { read first; $LIDO profile edit default; cat; } < ${work}/in; $LIDO profile show default | grep ^description
        echo "#9"; printf 'no\\nno\\nrest\\n' > ${work}/in; { $LIDO admin init; cat; } < ${work}/in 2>&1 | tail -1
        echo "#0"; $LIDO storage volume create fast v > /dev/null
        { $LIDO storage volume file push - fast v/y; $LIDO profile edit default; $LIDO admin init --preseed; \
          $LIDO storage volume import fast - w; } < ${work} 2>&1; $LIDO storage volume delete fast v > /dev/null
        rm ${work}/in ${work}/disk
      `);
      const answers = out.split(/^#\d\n/m).slice(1);
      assert.deepEqual(answers, [
        "a\nb\nc\n",
        "b\nc\n",
        "a\nb\nc\n",
        "3\n",
        "Error: Cannot read stdin: is a directory\n0\nrc 1\n",
        "3145728\n",
        "b\nc\n",
        'description: ""\n',
        'Do you want to configure a new storage pool? (yes/no) [default=yes]: Would you like a YAML "lido admin init" ' +
        "preseed to be printed? (yes/no) [default=no]: rest\n",
        "Error: Cannot read stdin: is a directory\n".repeat(4),
      ]);
      assert.deepEqual([err, code], ["", 0]);
    });

    await t.step("in a shell loop it does not eat the loop's input with -n", async () => {
      const { out } = await shell(`printf 'a\\nb\\nc\\n' | while read x; do $LIDO exec -n c1 -- echo $x; done`);
      assert.equal(out, "a\nb\nc\n");
    });

    await t.step("a reader that goes away ends it at once, as in a shell pipeline", async () => {
      const { out, ms } = await shell("$LIDO exec c1 -- yes | head -1; echo ${PIPESTATUS[0]}");
      assert.equal(out, "y\n141\n");
      assert.ok(ms < 10_000, `took ${ms} ms`);
      // The command writes nothing more, so that the client notices the closed pipe only at the command's end.
      assert.equal((await shell("$LIDO exec c1 -- sh -c 'echo x; exit 3' | true; echo done")).out, "done\n");
    });

    await t.step("output that cannot be written is told by the exit code, of either stream", async () => {
      const { out, err } = await shell(`
        $LIDO exec c1 -- echo lost >/dev/full; echo $?
        $LIDO exec c1 -- sh -c 'echo lost >&2' 2>/dev/full; echo $?
        $LIDO exec c1 -- sh -c 'echo lost >&2; echo more; exit 7' 2>/dev/full; echo $?
        $LIDO exec c1 -- true 2>/dev/full; echo $?
      `);
      assert.equal(out, "1\n1\nmore\n7\n0\n");
      assert.match(err, /^Error: Cannot write to stdout: no space left on device\n$/);
    });

    await t.step({
      name: "a working directory that was deleted is in nobody's way, and a relative file says why it is not there" +
        (process.arch === "x64" ? "" : ": not on this processor, where Bun gives up before us"),
      ignore: process.arch !== "x64",
      fn: async () => {
        const { out, err } = await shell(`
          mkdir ${daemon.directory}/gone; cd ${daemon.directory}/gone; rmdir ../gone
          $LIDO exec c1 -- echo hi; $LIDO list -f csv -c n; echo x | $LIDO exec c1 -- cat
          $LIDO storage volume create fast gone -q
          $LIDO image import x; echo $?; $LIDO storage volume export fast gone x; echo $?
          $LIDO storage volume export fast gone ${daemon.directory}/out -q; echo $?; rm ${daemon.directory}/out
          $LIDO storage volume delete fast gone -q; $LIDO config show nosuch
        `);
        assert.equal(out, "hi\nc1\nx\n1\n1\n0\n");
        const lines = err.split("\n");
        for (const line of lines.slice(0, 2)) {
          assert.match(line, /^Error: Cannot (read|write) "x": no such .*; the current working directory was deleted/);
        }
        assert.deepEqual(lines.slice(2), ['Error: Instance not found: "nosuch" in project "default"', ""]);
      },
    });

    await t.step("too few descriptors are named as the cause", async () => {
      // With a few more descriptors the command runs; with fewer, Bun itself reports the error.
      const { out } = await shell(`ulimit -n 9; $LIDO exec c1 -- echo hi 2>&1; echo $?`);
      assert.match(
        out,
        /^Error: Cannot connect to the lido daemon at .*: too many open files; "ulimit -n" [^\n]*\n(1|255)\n$/,
      );
    });

    await t.step("a reader of stderr that goes away is no reason to end", async () => {
      const { code, out } = await shell("$LIDO exec c1 -- sh -c 'echo e >&2; echo o; exit 3' 2> >(exec true)");
      assert.deepEqual([out, code], ["o\n", 3]);
    });

    for (const [name, number] of Object.entries({ HUP: 1, INT: 2, QUIT: 3, ABRT: 6, USR1: 10, USR2: 12, TERM: 15 })) {
      await t.step(`SIG${name} goes to the command, as it is`, async () => {
        // A shell handles a signal at once during `wait`, but not while it waits for a foreground command.
        const script = `trap 'echo got; exit ${number + 40}' ${number}; sleep 60 & echo up; wait`;
        const child = client("c1", "--", "sh", "-c", script);
        assert.equal(await line(child), "up");
        process.kill(child.pid!, `SIG${name}`);
        assert.deepEqual(await once(child, "exit"), [number + 40, null]);
      });
    }

    await t.step("what a signal ended has 128+n", async () => {
      const child = client("c1", "--", "sh", "-c", "echo up; exec sleep 1000");
      await line(child);
      process.kill(child.pid!, "SIGUSR2");
      assert.deepEqual(await once(child, "exit"), [140, null]);
    });

    await t.step("a second TERM within a second ends the client and the command", async () => {
      const child = client("c1", "--", "sh", "-c", "trap 'echo got' TERM; echo up; while :; do sleep 0.05; done");
      await line(child);
      process.kill(child.pid!, "SIGTERM");
      assert.equal(await line(child), "got");
      await apart();
      process.kill(child.pid!, "SIGTERM");
      assert.deepEqual(await once(child, "exit"), [143, null]);
      const { out } = await daemon.lido(["exec", "c1", "--", "sh", "-c", "sleep 0.2; ps -o args | grep -c '[t]rap'"]);
      assert.equal(out, "0\n");
    });

    await t.step(
      "two TERMs at once are of one sender, such as timeout(1)",
      async () => {
        const script = "trap 'echo got' TERM; trap 'echo end; exit 6' USR1; echo up; while :; do sleep 0.05; done";
        const child = client("c1", "--", "sh", "-c", script);
        await line(child);
        process.kill(child.pid!, "SIGTERM");
        // Without a pause the kernel merges both signals.
        const until = performance.now() + 20;
        while (performance.now() < until) { /* busy wait: timers are not exact enough */ }
        process.kill(child.pid!, "SIGTERM");
        assert.equal(await line(child), "got");
        process.kill(child.pid!, "SIGUSR1");
        assert.deepEqual(await once(child, "exit"), [6, null]);
      },
    );

    await t.step("TSTP goes to the command and stops the client, CONT wakes it and goes to the command", async () => {
      const child = client(
        "c1",
        "--",
        "sh",
        "-c",
        "rm -f /root/seen; touch /root/seen; trap 'echo tstp; echo tstp >/root/seen' TSTP; trap 'echo cont; exit 6' CONT; echo up; while :; do sleep 0.02; done",
      );
      assert.equal(await line(child), "up");
      let out = "";
      child.stdout.on("data", (data) => out += data);
      process.kill(child.pid!, "SIGTSTP");
      const isStopped = () => / T /.test(readFileSync(`/proc/${child.pid}/stat`, "utf8"));
      while (!isStopped()) await new Promise((resolve) => setTimeout(resolve, 5));
      // Wait until the command has seen SIGTSTP: SIGCONT cancels a pending stop signal. @see signal(7)
      while ((await daemon.ok("exec", "c1", "--", "cat", "/root/seen")) !== "tstp") { /* not yet */ }
      process.kill(child.pid!, "SIGCONT");
      assert.deepEqual(await once(child, "close"), [6, null]);
      assert.equal(out, "tstp\ncont\n");
    });

    await t.step("Ctrl-C without a terminal for the command goes to it all the same", async () => {
      using terminal = new Terminal(["/bin/sh"], { ...env, PS1: "outer> " });
      await terminal.sees(/outer> $/);
      terminal.type("$LIDO exec -T c1 -- sh -c 'trap \"echo interrupted; exit 5\" INT; echo up; sleep 1000 & wait'\n");
      await terminal.sees(/\r\nup\r\n/);
      terminal.type("\x03");
      await terminal.sees(/interrupted\r\n/);
      await terminal.sees(/outer> $/);
      terminal.type("echo rc=$?\n");
      await terminal.sees(/rc=(5|130)\r\n/); // 130 is the shell's own: it takes Ctrl-C as the pipeline's end
      terminal.type("exit\n");
      await terminal.ended;
    });

    const ends: Record<string, (pid: number) => Promise<unknown>> = {
      "TERM twice": async (pid) => {
        process.kill(pid, "SIGTERM");
        await apart();
        process.kill(pid, "SIGTERM");
      },
      "QUIT, which ends the command": (pid) => Promise.resolve(process.kill(pid, "SIGQUIT")),
      "the daemon's death": () => daemon.kill(),
    };
    for (const [name, end] of Object.entries(ends)) {
      await t.step(`the terminal is as it was after ${name}`, async () => {
        using terminal = new Terminal(["/bin/sh"], { ...env, PS1: "outer> " });
        await terminal.sees(/outer> $/);
        terminal.type("before=$(stty -g)\n");
        await terminal.sees(/outer> $/);
        terminal.type(
          `sh -c 'echo pid $$; exec $LIDO exec c1 -- sh -c "trap \\"\\" TERM; echo up; exec sleep 1000"'\n`,
        );
        const [, pid] = await terminal.sees(/\npid (\d+)\r\n/);
        await terminal.sees(/up\r\n/);
        await end(Number(pid));
        await terminal.sees(/outer> $/);
        terminal.type('test "$(stty -g)" = "$before" && echo as before\n');
        await terminal.sees(/\nas before\r\n/);
        terminal.type("exit\n");
        await terminal.ended;
      });
    }
    await daemon.up();

    await t.step("input by a pipe to a terminal: it stays open until the command has read the end, once", async () => {
      const { out, code } = await shell(
        `printf 'one\\ntwo' | $LIDO exec -t c1 -- sh -c 'stty -echo; cat; echo after; exit 4'`,
      );
      assert.match(out, /one\r\ntwoafter\r\n$/);
      assert.equal(code, 4);
      for (let round = 0; round < 20; round++) {
        const { out } = await shell("$LIDO exec -t c1 -- echo hello < /dev/null");
        assert.equal(out, "hello\r\n");
      }
    });

    await t.step("the connection is lost: 255, and why", async () => {
      const child = client("c1", "--", "sh", "-c", "echo up; exec sleep 1000");
      let err = "";
      child.stderr.on("data", (data) => err += data);
      await line(child);
      // Listen first: the client may end before kill() has seen the daemon's end.
      const ended = once(child, "exit");
      await daemon.kill();
      assert.deepEqual(await ended, [255, null]);
      assert.match(err, /^Error: (Lost|Cannot connect)[^\n]*\n$/);
      await daemon.up();
    });

    await t.step("flags", async () => {
      await daemon.fails(["exec", "-t", "-T", "c1", "--", "true"], /You can't pass -t and -T at the same time/);
      await daemon.fails(["exec", "--mode", "odd", "c1", "--", "true"], /Invalid mode "odd"/);
      await daemon.fails(["exec", "--env", "novalue", "c1", "--", "true"], /Bad environment variable "novalue"/);
      await daemon.fails(["exec", "--group", "x", "c1", "--", "true"], /Invalid group "x"/);
      await daemon.fails(["exec", "c1"], /Invalid number of arguments/);
    });

    await t.step("--wait-output waits for all who hold the output, as ssh", async () => {
      const { out, code } = await daemon.lido([
        "exec",
        "--wait-output",
        "c1",
        "--",
        "sh",
        "-c",
        "(sleep 0.3; echo late) & exit 3",
      ]);
      assert.deepEqual([out, code], ["late\n", 3]);
    });

    await t.step("--login takes home, shell and groups of the container's own files", async () => {
      await daemon.ok("exec", "c1", "--", "sh", "-c", "echo staff:x:50:root,user >> /etc/group");
      const { out } = await daemon.lido([
        "exec",
        "--login",
        "--user",
        "user",
        "c1",
        "--",
        "sh",
        "-c",
        "id -u; id -G; echo $HOME $SHELL $LOGNAME; pwd",
      ]);
      assert.equal(out, "1000\n1000 50\n/home/user /bin/sh user\n/home/user\n");
      const login = await daemon.lido(["exec", "--login", "c1"], { input: "echo $0 $HOME\n" });
      assert.match(login.out, /sh \/root\n/);
    });
  },
});
