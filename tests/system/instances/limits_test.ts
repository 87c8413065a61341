/** limits.* of running containers, as the container sees them. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

Deno.test("limits of a running container change at once, and what cannot be had is refused", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("launch", "bb", "c1", "-s", "plain", "-c", "limits.memory=200MiB", "-c", "limits.processes=100");
  // Read on the host: a container need not mount the hierarchy.
  const shown = async (controller: string, v1: string, v2: string): Promise<string> => {
    const { pid } = await daemon.query("/1.0/instances/c1/state") as { pid: number };
    const lines = readFileSync(`/proc/${pid}/cgroup`, "utf8").trimEnd().split("\n").map((line) => line.split(":"));
    const legacy = lines.find(([, controllers]) => controllers!.split(",").includes(controller));
    const path = legacy ? `/sys/fs/cgroup/${controller}${legacy[2]}/${v1}` : `/sys/fs/cgroup${lines[0]![2]}/${v2}`;
    return readFileSync(path, "utf8").trim();
  };
  const memory = () => shown("memory", "memory.limit_in_bytes", "memory.max");
  const processes = () => shown("pids", "pids.max", "pids.max");
  const set = async (...settings: string[]) => {
    const { code, err } = await daemon.lido(["config", "set", "c1", ...settings]);
    assert.deepEqual([code, err], [0, ""]);
  };

  await t.step("what it was started with holds from its first process on", async () => {
    assert.deepEqual([await memory(), await processes()], ["209715200", "100"]);
  });

  await t.step("memory: a size, a part of the host's, a soft limit, none", async () => {
    await set("limits.memory=100MiB");
    assert.equal(await memory(), "104857600");
    await set("limits.memory=50%");
    const half = Number(await memory());
    assert.ok(half <= totalmem() / 2 && half > totalmem() / 2 - 65536);
    await set("limits.memory.enforce=soft");
    assert.ok(["max", "9223372036854771712"].includes(await memory()));
    await daemon.ok("config", "unset", "c1", "limits.memory.enforce");
    await daemon.ok("config", "unset", "c1", "limits.memory");
    assert.ok(["max", "9223372036854771712"].includes(await memory()));
  });

  await t.step("a memory limit below what is in use changes nothing", async () => {
    await set("limits.memory=64MiB");
    // Anonymous memory of a running shell, which the kernel cannot reclaim.
    await daemon.ok(
      "exec",
      "--detach",
      "c1",
      "--",
      "sh",
      "-c",
      "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo $x | head -c 1 > /tmp/full; sleep 1000; :",
    );
    await daemon.ok("exec", "c1", "--", "sh", "-c", "until [ -s /tmp/full ]; do sleep 0.05; done");
    await daemon.fails(
      ["config", "set", "c1", "limits.memory=8MiB", "limits.processes=50"],
      /^Error: Cannot apply limits\.memory: 8\.00MiB are less than the [\d.]+MiB that are in use and cannot be freed\n$/,
    );
    assert.deepEqual([await memory(), await processes()], ["67108864", "100"]);
    assert.equal(await daemon.ok("config", "get", "c1", "limits.memory"), "64MiB");
    await daemon.ok("exec", "c1", "--", "true");
  });

  await t.step("what the kernel cannot take is refused when it is set, also while it is stopped", async () => {
    await daemon.ok("init", "bb", "c2", "-s", "plain");
    const refused = [
      ["limits.cpu.allowance=1ms/2000ms", /Invalid allowance: 1ms\/2000ms: a period of at most 1000ms is allowed/],
      ["limits.processes=99999999", /limit "99999999": 0 to 4194304, or -1 for none, is allowed/],
      ["limits.memory=1B", /Memory limit can't be 1B: at least 512KiB is allowed/],
    ] as const;
    const noCpus = ["limits.cpu=5000-5001", /limits\.cpu "5000-5001": the CPUs 0\S* are there/] as const;
    for (const [setting, reason] of [...refused, noCpus]) {
      for (const name of ["c1", "c2"]) await daemon.fails(["config", "set", name, setting], reason);
      await daemon.fails(["init", "bb", "c3", "-s", "plain", "-c", setting], reason);
    }
    for (const [setting, reason] of refused) await daemon.fails(["profile", "set", "default", setting], reason);
    // The greatest and the smallest value are accepted, and the container starts.
    const extremes = ["limits.cpu.allowance=1000ms/1000ms", "limits.processes=4194304", "limits.cpu=0,5000"];
    await daemon.ok("config", "set", "c2", ...extremes);
    await daemon.ok("start", "c2");
    await daemon.ok("delete", "-f", "c2");
  });

  await t.step("processes, CPUs and their time", async () => {
    await set("limits.processes=40", "limits.cpu=1", "limits.cpu.allowance=20ms/100ms", "limits.cpu.priority=5");
    assert.equal(await processes(), "40");
    assert.equal(await daemon.ok("exec", "c1", "--", "nproc"), "1");
    assert.match(await shown("cpu", "cpu.cfs_quota_us", "cpu.max"), /^20000( 100000)?$/);
    if (cpus().length > 1) {
      await daemon.ok("launch", "bb", "c2", "-c", "limits.cpu=1");
      const set = (name: string) => daemon.ok("exec", name, "--", "grep", "Cpus_allowed_list", "/proc/self/status");
      assert.notEqual(await set("c1"), await set("c2"), "a number of CPUs are the least used ones");
      await daemon.ok("delete", "-f", "c2");
    }
    for (const key of ["processes", "cpu", "cpu.allowance", "cpu.priority"]) {
      await daemon.ok("config", "unset", "c1", `limits.${key}`);
    }
    assert.equal(await processes(), "max");
    assert.equal(await daemon.ok("exec", "c1", "--", "nproc"), String(cpus().length));
    await daemon.fails(["config", "set", "c1", "limits.cpu=900-901"], /limits\.cpu "900-901": the CPUs 0\S* are there/);
    await daemon.ok("restart", "-f", "c1");
    const both = ["limits.cpu=1", "limits.hugepages.64KB=1MiB"];
    await daemon.fails(["config", "set", "c1", ...both], /limits\.hugepages\.64KB as .* is missing/);
    assert.equal(await daemon.ok("exec", "c1", "--", "nproc"), String(cpus().length), "one refusal rolls all back");
  });

  await t.step(
    "by a profile; a key that waits for the next start is named, by the real lxc it is set as well",
    async () => {
      await daemon.ok("profile", "set", "default", "limits.processes=77");
      assert.equal(await processes(), "77");
      const waits = 'Note: security.privileged: takes effect when "c1" is restarted\n';
      assert.equal((await daemon.lido(["profile", "set", "default", "security.privileged=true"])).err, waits);
      assert.equal((await daemon.lido(["profile", "unset", "default", "security.privileged"])).err, waits);
      assert.equal((await daemon.lido(["config", "set", "c1", "security.privileged=true"])).err, waits);
      assert.equal((await daemon.lido(["config", "unset", "c1", "security.privileged"])).err, waits);
      await daemon.lxc("config", "set", "c1", "limits.processes=66");
      assert.equal(await processes(), "66");
      await daemon.ok("restart", "-f", "c1");
      assert.deepEqual([await memory(), await processes()], ["67108864", "66"]);
    },
  );
});
