/** AppArmor: each running container has a profile, which keeps a privileged one from changing the host's settings, however it mounts them. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

const enabled = (() => {
  try {
    return readFileSync("/sys/module/apparmor/parameters/enabled", "utf8").startsWith("Y");
  } catch {
    return false;
  }
})();

Deno.test({
  name: "apparmor" + (enabled ? "" : ": the kernel of this host has none"),
  ignore: !enabled,
  fn: async (t) => {
    await using daemon = await Daemon.start();
    await daemon.furnish(await busyboxImage());
    const profiles = () =>
      readFileSync("/sys/kernel/security/apparmor/profiles", "utf8").split("\n").filter((line) => /^lido-/.test(line));
    const namespaces = () =>
      readdirSync("/sys/kernel/security/apparmor/policy/namespaces").filter((name) => name.startsWith("lido-"));
    const labelOf = async (name: string) => {
      const { pid } = await daemon.query(`/1.0/instances/${name}/state`) as { pid: number };
      return readFileSync(`/proc/${pid}/attr/current`, "utf8").trim();
    };
    const shell = (name: string, script: string) => daemon.ok("exec", name, "--", "sh", "-c", script);

    await t.step("an unprivileged container has a profile, and a namespace for what is loaded within", async () => {
      await daemon.ok("launch", "bb", "c1");
      assert.match(await labelOf("c1"), /^lido-[0-9a-f]{8}_c1\b.*:lido-[0-9a-f]{8}_c1:/);
      assert.match(profiles().join(), /^lido-[0-9a-f]{8}_c1 \(enforce\)$/);
      assert.equal(namespaces().length, 1);
      // The container, and a command in it, see only their AppArmor namespace.
      assert.match(
        await shell("c1", "cat /proc/1/attr/current /proc/self/attr/current"),
        /^unconfined\s+unconfined\s*$/,
      );
      const waiting = daemon.lido(["exec", "c1", "--", "sh", "-c", "echo $$ > /pid; exec sleep 1000"]);
      await shell("c1", "until [ -s /pid ]; do usleep 10000; done");
      const label = await labelOf("c1");
      const inside = Number(await shell("c1", "cat /pid"));
      const outside = pidOutside(inside, label);
      assert.notEqual(outside, undefined, "the command has the label of its container");
      await shell("c1", `kill ${inside}`);
      await waiting;
      await shell("c1", "mount -t tmpfs none /mnt && mount -t proc proc /mnt && umount /mnt && umount /mnt");
    });

    await t.step("it is what it was for the next daemon, and a container that ends takes it with it", async () => {
      const before = await labelOf("c1");
      await daemon.kill();
      await daemon.up();
      assert.equal(await labelOf("c1"), before);
      assert.match(await shell("c1", "cat /proc/self/attr/current"), /^unconfined/);
      await daemon.ok("stop", "-f", "c1");
      assert.deepEqual([profiles(), namespaces()], [[], []]);
      await daemon.ok("start", "c1");
      assert.equal(profiles().length, 1);
      await daemon.ok("delete", "-f", "c1");
      assert.deepEqual([profiles(), namespaces()], [[], []]);
    });

    await t.step("a privileged container does not reach the host's settings, however they are mounted", async () => {
      await daemon.ok("launch", "bb", "c2", "-c", "security.privileged=true");
      assert.match(await labelOf("c2"), /^lido-[0-9a-f]{8}_c2 \(enforce\)$/);
      const pattern = readFileSync("/proc/sys/kernel/core_pattern", "utf8");
      const succeeded: string[] = [];
      for (
        const attack of [
          "umount /proc/sys/kernel; mount -o remount,rw /proc; echo '|/x' > /proc/sys/kernel/core_pattern",
          "mkdir /a; mount -t proc proc /a; echo '|/x' > /a/sys/kernel/core_pattern",
          "mkdir /b; mount --bind /proc/sys /b; echo '|/x' > /b/kernel/core_pattern",
          "mkdir /c; mount --bind / /c; mount --rbind / /c; echo '|/x' > /c/proc/sys/kernel/core_pattern",
          "mkdir /d; mount --move /proc /d; echo '|/x' > /d/sys/kernel/core_pattern",
          "umount /proc/sysrq-trigger; echo h > /proc/sysrq-trigger",
          "mount -o remount,rw /sys; echo /x > /sys/kernel/uevent_helper",
          "mkdir /e; mount -t sysfs sysfs /e; echo /x > /e/kernel/uevent_helper",
          "mount -o remount,rw /sys; echo 0 > /sys/module/apparmor/parameters/mode",
          "cat /sys/kernel/debug/sleep_time",
        ]
      ) {
        const { code } = await daemon.lido(["exec", "c2", "--", "sh", "-c", attack]);
        if (code === 0 || readFileSync("/proc/sys/kernel/core_pattern", "utf8") !== pattern) succeeded.push(attack);
      }
      assert.deepEqual(succeeded, []);
      await daemon.ok("restart", "-f", "c2");
      await shell(
        "c2",
        "hostname other && mount -t tmpfs none /mnt && mkdir /mnt/x && mount --bind /mnt/x /tmp && umount /tmp /mnt",
      );
      await shell("c2", "echo 1 > /proc/sys/net/ipv4/ip_forward");
      await daemon.ok("delete", "-f", "c2");
      assert.deepEqual(profiles(), []);
    });
  },
});

/** @returns The host's pid of the process with this label and the pid `inside` in its container. */
function pidOutside(inside: number, label: string): number | undefined {
  const read = (pid: string, file: string) => {
    try {
      return readFileSync(`/proc/${pid}/${file}`, "utf8");
    } catch {
      return "";
    }
  };
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const found = pids.find((pid) =>
    new RegExp(`^NSpid:.*\\t${inside}$`, "m").test(read(pid, "status")) && read(pid, "attr/current").trim() === label
  );
  return found === undefined ? undefined : Number(found);
}
