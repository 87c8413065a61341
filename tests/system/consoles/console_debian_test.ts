/** The console of a real Debian: systemd's messages, its getty and a login, units that print to the terminal, and all of these across the death of
 * a daemon. */
import assert from "node:assert/strict";
import { Daemon, executable } from "../../support/daemon.ts";
import { madeImage } from "../../support/image.ts";
import { Terminal } from "../../support/terminal.ts";

Deno.test("the console of a Debian with systemd", async (t) => {
  const image = await madeImage("debian/12");
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "plain", "dir");
  await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=plain");
  await daemon.ok("image", "import", image, "--alias", "debian");
  const inside = (...argv: string[]) => daemon.ok("exec", "d1", "--", ...argv);
  const shown = async () => (await daemon.lido(["console", "d1", "--show-log"])).out;
  const attach = async () => {
    const terminal = new Terminal([executable, "console", "d1"], daemon.environment);
    await terminal.sees(/To detach from the console, press: <ctrl>\+a q\r\n/);
    return terminal;
  };

  await t.step("boot messages, then a login prompt", async () => {
    await daemon.ok("launch", "debian", "d1");
    while (!/d1 login: /.test(await shown())) await new Promise((resolve) => setTimeout(resolve, 200));
    assert.match(await shown(), /Reached target .*multi-user\.target/);
    assert.equal(await inside("stat", "-c", "%U:%G", "/dev/console"), "root:tty");
    await inside("passwd", "-d", "root");
  });

  await t.step("a login with job control, at the size of the window; a unit prints on the terminal", async () => {
    using terminal = await attach();
    terminal.type("\r");
    await terminal.sees(/login: $/);
    terminal.type("root\r");
    await terminal.sees(/# $/);
    terminal.type("tty; stty size; sleep 1000 & jobs; kept=here\r");
    await terminal.sees(/[\r\n]\/dev\/console\r\n33 91\r\n[^]*\[1\]\+? +Running +sleep 1000/);
    await inside(
      "systemd-run",
      "--wait",
      "-p",
      "StandardOutput=tty",
      "-p",
      "TTYPath=/dev/console",
      "echo",
      "by a unit",
    );
    await terminal.sees(/by a unit\r\n/);
    terminal.type("\x01q");
    assert.equal(await terminal.ended, 0);
  });

  await t.step("the daemon is killed: the login goes on, and units on the terminal do not fail meanwhile", async () => {
    await inside(
      ...["systemd-run", "--unit", "later", "--on-active=1", "--timer-property=AccuracySec=1ms"],
      ...["-p", "StandardOutput=tty", "-p", "TTYPath=/dev/console", "-p", "RemainAfterExit=yes", "echo", "meanwhile"],
    );
    await daemon.kill();
    await new Promise((resolve) => setTimeout(resolve, 2000)); // so that the unit starts without a daemon
    await daemon.up();
    assert.match(await shown(), /meanwhile\r\n/);
    assert.equal(await inside("systemctl", "is-active", "later", "console-getty"), "active\nactive");
    using terminal = await attach();
    terminal.type("echo still $kept\r");
    await terminal.sees(/[\r\n]still here\r\n/);
    terminal.type("exit\r");
    await terminal.sees(/d1 login: $/); // before, vhangup(2) closes every descriptor of the terminal but the master
    terminal.type("root\r");
    await terminal.sees(/# $/);
    terminal.type("poweroff\r");
    await terminal.sees(/Reached target .*shutdown\.target/);
    assert.equal(await terminal.ended, 0);
    assert.match(await shown(), /shutdown\.target/);
  });
});
