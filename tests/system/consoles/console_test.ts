/** Consoles of real containers: the native client and the real lxc in terminals, a daemon that dies, a container that floods its console. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { command } from "../../support/command.ts";
import { Daemon, executable } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { slowness } from "../../support/slowness.ts";
import { Terminal } from "../../support/terminal.ts";

const ringBytes = 128 * 1024;
const detach = ["\x01", "q"];

/** Pid of the daemon's console server. */
function consoleServer(daemon: Daemon): number {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`--consoles\0${daemon.directory}/run`);
    } catch {
      return false; // ended meanwhile
    }
  });
  assert.equal(pids.length, 1, "one for all containers");
  return Number(pids[0]);
}

function residentKiB(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]);
}

Deno.test("the console of a container", async (t) => {
  const image = await busyboxImage();
  await using daemon = await Daemon.start();
  await daemon.furnish(image);
  const env = daemon.environment;
  const attach = () => new Terminal([executable, "console", "c1"], env);
  const attached = /To detach from the console, press: <ctrl>\+a q[\r\n]+/;
  /** Attaches completely: the client's text comes first, the echo of its keys only when the daemon serves it. */
  const served = async (terminal: Terminal) => {
    await terminal.sees(attached);
    terminal.type(": here\r");
    await terminal.sees(/: here\r\n/);
  };
  const inside = (script: string, name = "c1") => daemon.ok("exec", name, "--", "sh", "-c", script);
  /** Detaches. Types the keys one by one, as a person does: lxc checks only the first key of each read. */
  const leave = async (terminal: Terminal) => {
    for (const key of detach) {
      terminal.type(key);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    assert.equal(await terminal.ended, 0);
  };
  const shown = async () => (await daemon.lido(["console", "c1", "--show-log"])).out;

  await t.step("what init and its services print is kept, and shown by lido and lxc", async () => {
    await daemon.ok("launch", "bb", "c1");
    await daemon.ok("launch", "bb", "c3");
    await inside(
      `printf '%s\\n' '::sysinit:/bin/echo booted' 'console::respawn:-/bin/sh' 'console::shutdown:/bin/echo going down' >/etc/inittab`,
    );
    await daemon.ok("restart", "-f", "c1");
    while (!(await shown()).includes("/ #")) { /* not yet */ }
    await inside("echo by exec >/dev/console");
    assert.match(await shown(), /^\nConsole log:\n\nbooted\r\n[^]*by exec\r\n/);
    assert.match(await daemon.lxc("console", "c1", "--show-log"), /Console log:\n\nbooted\r\n[^]*by exec\r\n/);
    assert.match(await daemon.lxc("info", "c1", "--show-log"), /Log:\n\nbooted\r\n/);
    assert.match(await daemon.ok("info", "c1", "--show-log"), /Log:\n\nbooted\r\n/);
  });

  await t.step("lido attaches: a login, its controlling terminal, the window's size, the detach key", async () => {
    using terminal = attach();
    await terminal.sees(attached);
    terminal.type("stty size; tty; kept=here\r");
    await terminal.sees(/\n33 91\r\n\/dev\/console\r\n/);
    terminal.resize(70, 20);
    await terminal.sees(/# $/); // busybox draws its prompt again
    terminal.type("stty size; sleep 1000\r");
    await terminal.sees(/\n20 70\r\n/);
    await inside("until ps | grep -q '[s]leep 1000'; do sleep 0.02; done"); // until then it is not in the foreground
    terminal.type("\x03");
    await terminal.sees(/# $/);
    terminal.type("echo rc $?\r");
    await terminal.sees(/rc 130\r\n/);
    await leave(terminal);
  });

  await t.step("one client at a time; a client that goes leaves room for the next; lxc attaches, too", async () => {
    using terminal = new Terminal(["lxc", "console", "c1"], { ...env, HOME: daemon.directory });
    await terminal.sees(attached);
    terminal.type("echo $((6*7)) $kept\r");
    await terminal.sees(/\n42 here\r\n/);
    await daemon.fails(["console", "c1"], /The console of "c1" is in use by another client/);
    await leave(terminal);
    using killed = attach();
    await killed.sees(attached);
    killed[Symbol.dispose]();
    await killed.ended;
    while ("running" in (await daemon.query("/1.0/operations") as object)) { /* not yet */ }
    using next = attach();
    await next.sees(attached);
    await leave(next);
  });

  await t.step("refusals", async () => {
    await daemon.fails(["console", "c1", "--type", "bogus"], /Unknown output type "bogus"/);
    await daemon.fails(["console", "c1", "-t", "vga"], /VGA console is only supported by virtual machines/);
    await daemon.fails(["console", "no"], /Instance not found/);
    await daemon.fails(["console", "c1"], /without a terminal as stdin: "--show-log" shows/);
    await daemon.fails(["start", "c1", "--console"], /already running/);
    await daemon.ok("pause", "c1");
    await daemon.fails(["console", "c1"], /Instance is frozen/);
    await daemon.ok("start", "c1");
  });

  await t.step("a daemon that is killed: the console goes on, and what it printed meanwhile is there", async () => {
    const before = consoleServer(daemon);
    await inside(
      "(while ! mkdir /gone 2>/dev/null; do sleep 0.05; done; head -c 300000 /dev/zero | tr '\\0' x; echo; echo meanwhile; touch /wrote) >/dev/console 2>&1 </dev/null & trap '' HUP",
    );
    await daemon.kill();
    await daemon.up();
    assert.equal(consoleServer(daemon), before);
    await inside("rmdir /gone; while [ ! -e /wrote ]; do sleep 0.05; done");
    assert.match(await shown(), /xxx\r\nmeanwhile\r\n/);
    using terminal = attach();
    await terminal.sees(attached);
    terminal.type("echo still $kept\r");
    await terminal.sees(/\nstill here\r\n/);
    await leave(terminal);
  });

  await t.step("a console server that is killed: another takes over, and who is attached goes on", async () => {
    using terminal = attach();
    using real = new Terminal(["lxc", "console", "c3"], { ...env, HOME: daemon.directory });
    await served(terminal);
    await served(real);
    for (const round of ["first", "second"]) {
      const before = consoleServer(daemon);
      process.kill(before, "SIGKILL");
      await inside(`echo after the ${round} >/dev/console`);
      await terminal.sees(new RegExp(`after the ${round}\\r\\n`));
      assert.notEqual(consoleServer(daemon), before);
      terminal.type(`echo ${round} still $kept\r`);
      await terminal.sees(new RegExp(`\\n${round} still here\\r\\n`));
      await inside(`echo c3 after the ${round} >/dev/console`, "c3");
      await real.sees(new RegExp(`c3 after the ${round}\\r\\n`));
    }
    // The console server was replaced, and with it the output that it had kept.
    assert.match(
      await shown(),
      /^\nConsole log:\n\n\[lido: the console server has ended; what was printed before is lost\]\r\n[^]*after the second/,
    );
    await leave(terminal);
    await leave(real);
  });

  await t.step("where no other can take over, who is attached is told, and the next who attaches has one", async () => {
    using terminal = attach();
    await served(terminal);
    const socket = join(daemon.directory, "run/.tty");
    rmSync(socket);
    mkdirSync(socket);
    process.kill(consoleServer(daemon), "SIGKILL");
    await terminal.sees(/Error: Lost the console of "c1": Cannot start the console server: .+\r\n/);
    assert.equal(await terminal.ended, 1);
    await daemon.fails(["console", "c1", "--show-log"], /Cannot start the console server: .*\.tty/);
    rmdirSync(socket);
    using next = attach();
    await next.sees(attached);
    next.type("echo and still $kept\r");
    await next.sees(/\nand still here\r\n/);
    await leave(next);
    await daemon.ok("delete", "-f", "c3");
  });

  await t.step(
    "a daemon and a console server that are both killed: the container goes on with another console",
    async () => {
      const { pid } = await daemon.query("/1.0/instances/c1/state") as { pid: number };
      const server = consoleServer(daemon);
      process.kill(server, "SIGSTOP"); // so that the daemon does not start another
      await daemon.kill();
      process.kill(server, "SIGKILL");
      while (existsSync(`/proc/${server}/fd/3`)) await new Promise((resolve) => setTimeout(resolve, 5));
      await daemon.up();
      assert.equal((await daemon.query("/1.0/instances/c1/state") as { pid: number }).pid, pid);
      await inside("echo by exec again >/dev/console");
      while (!(await shown()).includes("/ # ")) { /* init starts the shell again */ }
      assert.match(await shown(), /by exec again\r\n/);
      using terminal = attach();
      await terminal.sees(attached);
      terminal.type("echo another $kept $((6*7))\r");
      await terminal.sees(/\nanother 42\r\n/);
      await leave(terminal);
    },
  );

  await t.step(
    "a container that prints without end: memory and disk stay bounded, and the daemon answers",
    async () => {
      const server = consoleServer(daemon);
      await shown();
      const before = { daemon: residentKiB(daemon.pid), server: residentKiB(server) };
      const script = "yes 0123456789 >/dev/console & sleep 5; kill $!";
      const flood = command([executable, "exec", "c1", "--", "sh", "-c", script], { env });
      let isOver = false;
      void flood.finally(() => isOver = true);
      let slowestMs = 0;
      using terminal = attach(); // this client reads more slowly than the container prints
      await terminal.sees(attached);
      while (!isOver) {
        const { code, ms } = await daemon.lido(["query", "/1.0/instances/c1"]);
        assert.equal(code, 0);
        slowestMs = Math.max(slowestMs, ms);
      }
      assert.equal((await flood).code, 0);
      assert.ok(slowestMs < 2000 * slowness, `a request took ${slowestMs} ms`);
      await leave(terminal);
      const grown = { daemon: residentKiB(daemon.pid) - before.daemon, server: residentKiB(server) - before.server };
      assert.ok(grown.daemon < 40 * 1024, `the daemon has grown by ${grown.daemon} KiB`);
      assert.ok(grown.server < 24 * 1024, `the console server has grown by ${grown.server} KiB`);
      const log = await daemon.lido(["query", "--raw", "/1.0/instances/c1/console"]);
      assert.ok(log.bytes.length <= ringBytes + 1 && log.bytes.length > ringBytes / 2, `${log.bytes.length} bytes`);
      const files = join(daemon.directory, "logs/c1");
      for (const name of readdirSync(files)) assert.ok(statSync(join(files, name)).size <= ringBytes, name);
    },
  );

  await t.step(
    "a container that ends: the client ends, and what was printed last stays to be read and deleted",
    async () => {
      using terminal = attach();
      await terminal.sees(attached);
      await daemon.ok("stop", "c1");
      await terminal.sees(/going down\r\n[^]*\n\r$/);
      assert.equal(await terminal.ended, 0);
      assert.match(await shown(), /going down\r\n/);
      assert.ok(statSync(join(daemon.directory, "logs/c1/console.log")).size <= ringBytes);
      await daemon.fails(["console", "c1"], /Instance is not running/);
      await daemon.ok("query", "-X", "DELETE", "/1.0/instances/c1/console");
      assert.equal(await shown(), "\nConsole log:\n\n\n");
      await daemon.ok("start", "c1");
      while (!(await shown()).includes("booted")) { /* not yet */ }
      await daemon.ok("query", "-X", "DELETE", "/1.0/instances/c1/console");
      assert.doesNotMatch(await shown(), /booted/);
    },
  );

  await t.step("its log is there all the time while it boots again, from inside or by the user", async () => {
    let isOver = false;
    const failures: string[] = [];
    const looks = [["console", "c1", "--show-log"], ["info", "c1", "--show-log"]].map(async (words) => {
      while (!isOver) {
        const { code, err } = await daemon.lido(words);
        if (code !== 0) failures.push(err);
      }
    });
    try {
      for (let time = 0; time < 3; time++) await daemon.ok("restart", "-f", "c1");
      const pid = async () => (await daemon.query("/1.0/instances/c1/state") as { pid: number }).pid;
      const before = await pid();
      await inside("reboot");
      while ([before, 0].includes(await pid())) { /* not yet */ }
      while (!(await shown()).includes("/ #")) { /* not yet */ }
    } finally {
      isOver = true;
      await Promise.all(looks);
    }
    assert.deepEqual(failures, []);
  });

  await t.step("a container that ends while no daemon is there leaves what it printed last", async () => {
    await daemon.ok("config", "set", "c1", "boot.autostart", "false");
    const { pid } = await daemon.query("/1.0/instances/c1/state") as { pid: number };
    await inside(
      "(while [ ! -e /now ]; do sleep 0.05; done; sleep 0.5; echo last words; poweroff -f) >/dev/console 2>&1 </dev/null &",
    );
    await inside("touch /now");
    await daemon.kill();
    while (existsSync(`/proc/${pid}`)) await new Promise((resolve) => setTimeout(resolve, 20));
    await daemon.up();
    assert.equal(await daemon.ok("list", "c1", "-f", "csv", "-c", "s"), "STOPPED");
    assert.match(await shown(), /last words\r\n/);
  });

  await t.step("a privileged container has one, too", async () => {
    await daemon.ok("launch", "bb", "c2", "-c", "security.privileged=true");
    await inside("echo privileged >/dev/console; stat -c '%u %a %t' /dev/console", "c2");
    assert.equal(await inside("stat -c '%u %a' /dev/console", "c2"), "0 620");
    assert.match(await daemon.ok("console", "c2", "--show-log"), /privileged\r\n/);
  });

  await t.step("start --console attaches as soon as it runs; it is for one instance", async () => {
    const terminal = new Terminal([executable, "start", "c1", "--console"], env);
    await terminal.sees(attached);
    await leave(terminal);
    assert.equal(await daemon.ok("list", "c1", "-f", "csv", "-c", "s"), "RUNNING");
    await daemon.fails(["start", "c1", "c2", "--console"], /--console only works with a single instance/);
    await daemon.fails(["start", "--all", "--console"], /--console can't be used with --all/);
  });
});
