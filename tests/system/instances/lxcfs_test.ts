/** LXCFS: containers see their own limits where it runs, also if it starts, stops and restarts while they run. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { TestLxcfs, until } from "../../support/lxcfs.ts";

const limitKiB = 100 * 1024;
const ofHostKiB = Number(/^MemTotal:\s+(\d+)/m.exec(readFileSync("/proc/meminfo", "utf8"))![1]);

Deno.test({
  name: "lxcfs" + (TestLxcfs.isInstalled ? "" : ": not installed on this host"),
  ignore: !TestLxcfs.isInstalled,
  fn: async (t) => {
    await using lxcfs = new TestLxcfs();
    await using daemon = await Daemon.start({ flags: ["--lxcfs", lxcfs.path] });
    await daemon.furnish(await busyboxImage());
    await daemon.ok("profile", "set", "default", "limits.memory=100MiB");
    await daemon.ok("profile", "set", "default", "limits.cpu=1");
    const exec = (name: string, script: string) => daemon.ok("exec", name, "--", "sh", "-c", script);
    const totalKiB = async (name: string, ...flags: string[]) => {
      const { out } = await daemon.lido(["exec", ...flags, name, "--", "cat", "/proc/meminfo"]);
      return Number(/^MemTotal:\s+(\d+)/m.exec(out)?.[1]);
    };
    const warnings = async () => await daemon.query("/1.0/warnings?recursion=1") as { last_message: string }[];

    await t.step("without it a container runs as before", async () => {
      await daemon.ok("launch", "bb", "c1");
      assert.equal(await totalKiB("c1"), ofHostKiB);
      assert.deepEqual(await warnings(), []);
    });

    await t.step("when it starts, containers that run see their limits, and those that are started then", async () => {
      await lxcfs.start();
      await until(async () => await totalKiB("c1") === limitKiB, "c1 sees its memory");
      await daemon.ok("launch", "bb", "c2");
      await daemon.ok("launch", "bb", "c3", "-c", "security.privileged=true");
      for (const name of ["c1", "c2", "c3"]) {
        assert.equal(await totalKiB(name), limitKiB, name);
        assert.equal(await totalKiB(name, "--user", "1000"), limitKiB, name);
        const seen = await exec(name, "nproc; grep -c ^processor /proc/cpuinfo; grep -c ^cpu[0-9] /proc/stat");
        assert.equal(seen, "1\n1\n1", name);
        assert.match(await exec(name, "cat /sys/devices/system/cpu/online"), /^\d+$/, name);
        const uptimeS = Number((await exec(name, "cat /proc/uptime")).split(" ")[0]);
        assert.ok(uptimeS < 120, `${name} is up for ${uptimeS} s`);
        await exec(name, "cat /proc/loadavg /proc/swaps /proc/diskstats >/dev/null");
      }
    });

    await t.step("when it crashes, that is said, and containers see the host's figures instead of errors", async () => {
      await lxcfs.kill();
      await until(async () => await totalKiB("c1") === ofHostKiB, "c1 sees the host's memory");
      await until(async () => await totalKiB("c3") === ofHostKiB, "c3 sees the host's memory");
      const [warning, ...others] = await warnings();
      assert.deepEqual(others, []);
      assert.match(warning!.last_message, /^lxcfs at ".*" has ended \(its process is gone\): .*umount -l /);
      assert.match(daemon.log, /"level":40.*has ended \(its process is gone\)/);
      await daemon.ok("restart", "-f", "c2");
      assert.equal(await totalKiB("c2"), ofHostKiB);
    });

    await t.step("when it is back, they see their limits again", async () => {
      await lxcfs.unmount();
      await lxcfs.start();
      for (const name of ["c1", "c2", "c3"]) {
        await until(async () => await totalKiB(name) === limitKiB, `${name} sees its memory`);
      }
      assert.deepEqual(await warnings(), []);
    });

    await t.step("one that was started anew while no daemon ran is taken up by the next", async () => {
      await daemon.kill();
      await lxcfs.kill();
      await lxcfs.unmount();
      await lxcfs.start();
      await daemon.up();
      for (const name of ["c1", "c2", "c3"]) assert.equal(await totalKiB(name), limitKiB, name);
    });

    await t.step("what a container has mounted there itself stays", async () => {
      await exec("c1", "umount /proc/uptime && echo mine > /tmp/uptime && mount --bind /tmp/uptime /proc/uptime");
      await lxcfs.kill();
      await until(async () => await totalKiB("c1") === ofHostKiB, "c1 sees the host's memory");
      await lxcfs.unmount();
      await lxcfs.start();
      await until(async () => await totalKiB("c1") === limitKiB, "c1 sees its memory");
      assert.equal(await exec("c1", "cat /proc/uptime"), "mine");
    });
  },
});
