/** The test of every image: boot, use of what real systems use, and every way to stop. */
import assert from "node:assert/strict";
import { type CommandOptions, type Outcome, succeed } from "../support/command.ts";
import { Daemon, executable } from "../support/daemon.ts";
import { madeImage } from "../support/image.ts";
import { LifecycleEvents } from "../support/lifecycle_events.ts";
import { slowness } from "../support/slowness.ts";
import { type BootImage, untilBooted } from "./images.ts";
import { nest } from "./nesting.ts";
import { serviceLog, servicePackage } from "./package.ts";

/** Longest time for a clean stop of an idle system. */
const cleanStopMs = 10_000;
/** Longest time until the daemon reports a power-off or reboot that the instance did itself. */
const ownEndMs = 20_000;

/** An instance of one image, and what a user does with it. */
class Guest {
  readonly name: string;
  readonly #daemon: Daemon;
  readonly #image: BootImage;

  constructor(daemon: Daemon, image: BootImage, name: string) {
    this.#daemon = daemon;
    this.#image = image;
    this.name = name;
  }

  /** Runs a script as root, which must succeed. @returns What it printed, without the last newline. */
  sh(script: string, options: CommandOptions = {}): Promise<string> {
    return succeed([executable, "exec", this.name, "--", "sh", "-c", script], {
      ...options,
      env: this.#daemon.environment,
    });
  }

  /** Runs a script during which the system may end, such as `poweroff`. */
  tryRun(script: string): Promise<Outcome> {
    return this.#daemon.lido(["exec", this.name, "--", "sh", "-c", script]);
  }

  async booted(): Promise<void> {
    await this.sh(untilBooted[this.#image.init]);
  }

  async start(): Promise<void> {
    await this.#daemon.ok("start", this.name);
    await this.booted();
  }

  /** Stops the instance cleanly, and asserts that it was quick. */
  async stop(): Promise<void> {
    const started = performance.now();
    await this.#daemon.ok("stop", this.name);
    const ms = performance.now() - started;
    assert.ok(ms <= cleanStopMs * slowness, `stopping "${this.name}" took ${ms} ms`);
  }

  async state(): Promise<string> {
    return (await this.#daemon.query(`/1.0/instances/${this.name}`) as { status: string }).status;
  }

  bootId(): Promise<string> {
    return this.sh("cat /proc/sys/kernel/random/boot_id");
  }

  /** Powers off from inside the container. */
  async powerOff(): Promise<void> {
    using events = await LifecycleEvents.open(this.#daemon);
    await this.tryRun("poweroff");
    await events.until(this.name, ["instance-shutdown", "instance-stopped"], ownEndMs);
    assert.equal(await this.state(), "Stopped");
  }

  /** Reboots from inside the container. */
  async reboot(): Promise<void> {
    const pid = await this.#pid();
    using events = await LifecycleEvents.open(this.#daemon);
    await this.tryRun("reboot");
    await events.until(this.name, ["instance-started", "instance-restarted"], ownEndMs);
    await this.booted();
    assert.notEqual(await this.#pid(), pid);
  }

  async #pid(): Promise<number> {
    return (await this.#daemon.query(`/1.0/instances/${this.name}/state`) as { pid: number }).pid;
  }
}

/** @param options.cycles Number of starts and stops. @param options.cron Waits for a cron job, one minute at most, on Debian images without
 * systemd. @param options.host Prefix of the daemon's command line, to run it in the mount namespace of another host. */
export async function tellStory(
  t: Deno.TestContext,
  image: BootImage,
  options: { cycles: number; cron?: boolean; host?: readonly string[] },
): Promise<void> {
  const file = await madeImage(image.name);
  await using daemon = await Daemon.start({ argv: [...(options.host ?? []), executable] });
  await daemon.furnish(file);
  const guest = new Guest(daemon, image, "c1");
  const isDebian = image.init !== "busybox";
  const isSystemd = image.init === "systemd";
  const step = async (name: string, does: boolean, body: () => Promise<void>) => {
    if (does) await t.step(`${image.name}: ${name}`, body);
  };

  // The cron job runs at the next full minute, in parallel with the other steps.
  const timed = new Guest(daemon, image, "c2");
  const hasCron = options.cron === true && isDebian && !isSystemd;
  await step("takes a job for cron", hasCron, async () => {
    await daemon.ok("launch", "bb", "c2");
    await timed.booted();
    await timed.sh("mkfifo /run/rang && echo '* * * * * root echo rang >/run/rang' >/etc/cron.d/rang");
  });

  await step("boots, with the failed units of LXD", true, async () => {
    await daemon.ok("launch", "bb", "c1");
    await guest.booted();
    assert.equal(await guest.sh("hostname"), "c1");
    // df shows none of lido's own mounts, and none of them hides the root.
    const shown = (await guest.sh("df -P | tail -n +2 | sed 's/.* //'")).split("\n");
    assert.ok(shown.includes("/") && !shown.includes("/proc/sys/kernel/random/boot_id"), shown.join("\n"));
    if (image.init === "openrc") assert.equal(await guest.sh("rc-status --nocolor --crashed || :"), "");
    if (!isSystemd) return;
    const failed = await guest.sh("systemctl --failed --no-legend --plain | cut -d' ' -f1");
    assert.deepEqual(failed.split("\n").filter(Boolean), image.failedUnits);
    const state = await guest.sh("systemctl is-system-running || :");
    assert.equal(state, image.failedUnits.length > 0 ? "degraded" : "running");
    assert.equal(await guest.sh("systemctl list-jobs --no-legend"), "");
    assert.equal(await guest.sh("systemd-detect-virt --container"), "lxc");
  });

  await step("users: su, sudo, its own name in /etc/hosts", isDebian, async () => {
    assert.equal(await guest.sh("su - user -c 'id -un; pwd; sudo -n id -u'"), "user\n/home/user\n0");
    assert.match(await guest.sh("getent hosts c1"), /^127\.0\.1\.1\s+c1$/);
  });

  await step("loginctl knows a session, and a user's own systemd runs", isSystemd, async () => {
    const asked = "loginctl show-session $XDG_SESSION_ID -p Name --value && systemctl --user is-system-running --wait";
    assert.equal(await guest.sh(`su - user -c '${asked}'`), "user\nrunning");
  });

  await step("apt-get installs a package with a service from a local file", isDebian, async () => {
    await guest.sh("cat >/root/lido-probe.deb", { input: await servicePackage() });
    await guest.sh("DEBIAN_FRONTEND=noninteractive apt-get install -y /root/lido-probe.deb");
    await guest.sh(`until grep -q started ${serviceLog}; do sleep 0.1; done`);
    if (isSystemd) assert.equal(await guest.sh("systemctl is-active lido-probe"), "active");
  });

  await step("systemd-run: a command, its limits, a network of its own, a timer", isSystemd, async () => {
    assert.equal(await guest.sh("systemd-run --wait --pipe --quiet sh -c 'echo hello; exit 0'"), "hello");
    assert.equal((await guest.tryRun("systemd-run --wait --quiet sh -c 'exit 7'")).code, 7);
    // A unit's cgroup is created, limited and read inside the container's own cgroup.
    const limited = "systemd-run --wait --pipe --quiet -p TasksMax=17 sh -c 'systemctl show $(basename $(sed -n " +
      '"s/.*[/]\\(run-.*\\.service\\)$/\\1/p" /proc/self/cgroup | head -n 1)) -p TasksMax --value\'';
    assert.equal(await guest.sh(limited), "17");
    // If the namespace cannot be made, systemd either goes on without it or fails the service, depending on the release.
    const own = await guest.sh("systemd-run --wait --pipe --quiet -p PrivateNetwork=true readlink /proc/self/ns/net");
    assert.match(own, /^net:/);
    assert.notEqual(own, await guest.sh("readlink /proc/self/ns/net"));
    await guest.sh(
      "mkfifo /run/rang && systemd-run --quiet --on-active=100ms --timer-property=AccuracySec=10ms sh -c 'echo rang >/run/rang'",
    );
    assert.equal(await guest.sh("cat /run/rang"), "rang");
  });

  await step("a clean stop ends its services", true, async () => {
    await guest.stop();
    await guest.start();
    if (!isDebian) return;
    await guest.sh(
      `tail -n +1 -f ${serviceLog} | grep -c --line-buffered started | head -n 1 >/dev/null & ` +
        `until [ $(grep -c started ${serviceLog}) = 2 ]; do sleep 0.1; done; kill $! 2>/dev/null || :`,
    );
    assert.equal(await guest.sh(`cat ${serviceLog}`), "started\nended\nstarted");
  });

  await step("the journal has each boot apart", isSystemd, async () => {
    const boots = (await guest.sh("journalctl --list-boots --no-pager | grep -v '^IDX'")).split("\n");
    assert.equal(boots.length, 2, boots.join("\n"));
    const ids = boots.map((line) => line.trim().split(/\s+/)[1]);
    assert.equal(ids[1], (await guest.bootId()).replaceAll("-", ""));
    assert.notEqual(ids[0], ids[1]);
  });

  await step("poweroff and reboot from inside", true, async () => {
    await guest.reboot();
    await guest.powerOff();
    await guest.start();
  });

  await step("the same after the daemon was restarted, also while there is none", true, async () => {
    assert.equal(await daemon.terminate(), 0);
    await daemon.up();
    assert.equal(await guest.state(), "Running");
    await guest.reboot();
    await daemon.kill();
    await daemon.up();
    await guest.powerOff();
    await guest.start();
  });

  await step(`${options.cycles} starts and stops`, true, async () => {
    for (let cycle = 0; cycle < options.cycles; cycle++) {
      await guest.stop();
      await guest.start();
    }
    if (!isSystemd) return;
    const failed = await guest.sh("systemctl --failed --no-legend --plain | cut -d' ' -f1");
    assert.deepEqual(failed.split("\n").filter(Boolean), image.failedUnits);
  });

  await step("a stop right after the start, at each moment of the boot", true, async () => {
    for (let moment = 0; moment < 3; moment++) {
      await guest.stop();
      await daemon.ok("start", "c1");
      await guest.tryRun(`sleep 0.${moment * 2}`);
    }
    await guest.stop();
  });

  await step("nesting: namespaces as docker makes them, and in a user namespace", isDebian, async () => {
    await daemon.ok("config", "set", "c1", "security.nesting=true");
    await guest.start();
    await nest(daemon, "c1");
  });

  await step("cron has run its job", hasCron, async () => {
    // The job writes to a FIFO and blocks until it is read.
    assert.equal(await timed.sh("head -n 1 /run/rang", { timeoutMs: 130_000 }), "rang");
    await timed.stop();
  });
}
