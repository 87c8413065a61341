/** Combined faults: the daemon is killed or a call fails at one point, and something else is wrong before or after. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CheckProblem, Profile, StorageVolume } from "../../api/types.ts";
import { quotaGroup } from "../../drivers/host/btrfs/quota.ts";
import { succeed } from "../support/command.ts";
import { Daemon, fastPool } from "../support/daemon.ts";
import { Filesystem } from "../support/filesystem.ts";
import { busyboxImage } from "../support/image.ts";
import { slowness } from "../support/slowness.ts";
import { isFastAlone, prepareDaemon } from "./support.ts";
import { Api } from "./storage_api.ts";

/** Starts a process in a container's directory that keeps it busy and outlives the daemon. */
async function enter(pid: number, directory: string): Promise<ChildProcess> {
  const script = 'cd "$1" && echo in && exec cat';
  const child = spawn("nsenter", ["-t", String(pid), "-m", "sh", "-c", script, "sh", directory], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await Promise.race([once(child.stdout!, "data"), once(child, "exit")]);
  assert.equal(child.exitCode, null);
  return child;
}

/** Fails one hanging request instead of the whole suite. */
async function within(seconds: number, work: Promise<unknown>): Promise<void> {
  const timer = Promise.withResolvers<never>();
  const timeout = setTimeout(() => timer.reject(new Error("it waits for ever")), seconds * 1000 * slowness);
  await Promise.race([work, timer.promise]).finally(() => clearTimeout(timeout));
}

Deno.test({
  name: "cases of two faults at once",
  ignore: isFastAlone && fastPool[0] !== "btrfs",
  fn: async (t) => {
    await using own = await Filesystem.make("ext4", 64);
    await using plain = await Filesystem.make("ext4", 256);
    await using fast = await Filesystem.make("btrfs", 256);
    await using daemon = await Daemon.start({
      argv: [await prepareDaemon()],
      directory: join(own.path, "lido"),
    });
    const api = new Api(daemon.directory);
    const pools = { d: ["dir", plain], b: ["btrfs", fast] } as const;
    for (const [name, [driver, { path }]] of Object.entries(pools)) {
      mkdirSync(join(path, "pool"));
      await api.createPool(name, driver, { source: join(path, "pool") });
      await api.create(name, "work");
    }
    const image = readFileSync(await busyboxImage());
    await api.ask("POST", "/images", image, { "content-type": "application/octet-stream" });
    const [{ fingerprint }] = await api.ask("GET", "/images?recursion=1");
    const source = { type: "image", fingerprint };
    const root = { type: "disk", path: "/", pool: "d" };
    const check = async () => (await api.ask("POST", "/check", {}) as CheckProblem[]).map(({ problem }) => problem);
    let armed = 0;
    const arm = (fault: string) => writeFileSync(`${daemon.directory}.fault`, `${fault} case${armed++}`);
    const disarm = () => rmSync(`${daemon.directory}.fault`, { force: true });
    const killed = async (work: Promise<unknown>) => {
      await assert.rejects(work);
      disarm();
      await daemon.ended;
    };
    const again = async () => {
      await daemon.kill();
      await daemon.up();
    };

    await t.step("a row of the journal that a full disk kept does not take a later intent with it", async () => {
      arm("full 1");
      await assert.rejects(api.copy("d", "d", "new"), /injected/);
      disarm();
      const left = await check();
      assert.equal(left.length, 1, String(left));
      assert.match(left[0]!, /could not be settled: volume\.create /);
      own.free();
      arm("at volume.create committed");
      await killed(api.ask("POST", "/instances", { name: "c1", devices: { root }, source }));
      await daemon.up();
      assert.deepEqual(await api.ask("GET", "/instances"), []);
      assert.equal(existsSync(join(daemon.directory, "storage-pools/d/containers/c1")), false);
      assert.deepEqual(await check(), []);
      await api.copy("d", "d", "new");
      await api.delete("d", "new");
    });

    await t.step("a size that could not be undone does not override a later one", async () => {
      await api.set("b", "work", { size: "50MiB" });
      await succeed(["mount", "-o", "remount,ro", fast.path]);
      await assert.rejects(api.set("b", "work", { size: "60MiB" }));
      await succeed(["mount", "-o", "remount,rw", fast.path]);
      const left = await check();
      assert.equal(left.length, 1, String(left));
      assert.match(left[0]!, /could not be settled: volume\.limit /);
      await api.set("b", "work", { size: "80MiB" });
      await again();
      const volume = await api.ask("GET", "/storage-pools/b/volumes/custom/work") as StorageVolume;
      assert.equal(volume.config.size, "80MiB");
      assert.equal(quotaGroup(api.volumePath("b", "work"))?.limitBytes, 80n << 20n);
      assert.deepEqual(await check(), []);
    });

    await t.step("what a pool that was away refused does not count as a use of its volume", async () => {
      const place = join(daemon.directory, "storage-pools/d");
      await succeed(["umount", place]);
      const path = "/storage-pools/d/volumes/custom/work";
      for (const rest of ["/state", "/files?path=/"]) {
        await assert.rejects(api.ask("GET", `${path}${rest}`), /is unavailable/);
      }
      await succeed(["mount", "--bind", join(plain.path, "pool"), place]);
      await api.ask("POST", "/check", { repair: true });
      // A rename waits until the last use of the volume has ended.
      await within(30, api.rename("d", "work", "other"));
      await api.rename("d", "other", "work");
      await again();
      assert.deepEqual(await check(), []);
    });

    await t.step(
      "what could not be completed goes with its volume or instance, and is not done to the next of its name",
      async () => {
        const c1 = async () => {
          const devices = { root: { ...root, pool: "b" } };
          await api.ask("POST", "/instances", { name: "c1", devices, source });
          await api.ask("POST", "/instances/c1/snapshots", { name: "s0" });
          return join(daemon.directory, "storage-pools/b/containers/c1");
        };
        const v = { type: "disk", path: "/mnt/v", pool: "d", source: "v" };
        const power = (action: string) => api.ask("PUT", "/instances/user/state", { action, force: true });
        await api.ask("POST", "/instances", { name: "user", devices: { root }, source });
        await power("start");
        const attach = async (devices: object) =>
          await api.ask("PUT", "/instances/user", {
            ...await api.ask("GET", "/instances/user"),
            devices: { root, ...devices },
          });
        await api.create("d", "v");
        rmSync(api.volumePath("d", "v"), { recursive: true });
        await assert.rejects(attach({ v }), /Volume "v" of storage pool "d" is known but not on disk/);
        const old = await c1();
        const snapshot = join(daemon.directory, "storage-pools/b/containers-snapshots/c1/s0");
        await succeed(["btrfs", "-q", "subvolume", "delete", old, snapshot]);
        await assert.rejects(api.ask("PUT", "/instances/c1", { restore: "s0" }), /"s0" .* is known but not on disk/);
        assert.equal((await check()).filter((one) => /could not be settled/.test(one)).length, 2);
        await assert.rejects(api.rename("d", "v", "other"), /was cut off/);
        await api.delete("d", "v");
        await api.ask("DELETE", "/instances/c1");
        assert.deepEqual(await check(), []);
        // New ones of the same names work.
        const root1 = await c1();
        writeFileSync(join(root1, "rootfs/later"), "later");
        await api.create("d", "v");
        await attach({ v });
        await attach({});
        const owner = statSync(api.volumePath("d", "v")).uid;
        assert.ok(owner > 0);
        await again();
        assert.equal(statSync(api.volumePath("d", "v")).uid, owner);
        assert.equal(readFileSync(join(root1, "rootfs/later"), "utf8"), "later");
        await power("stop");
        for (const name of ["c1", "user"]) await api.ask("DELETE", `/instances/${name}`);
        await api.delete("d", "v");
      },
    );

    await t.step("a profile's change that an instance could not undo does not override a later one", async () => {
      await api.ask("POST", "/profiles", { name: "p1" });
      await api.ask("POST", "/instances", { name: "c1", profiles: ["p1"], devices: { root }, source });
      await api.ask("PUT", "/instances/c1/state", { action: "start" });
      const { pid } = await api.ask("GET", "/instances/c1/state");
      await api.create("b", "shifted", { "security.shifted": "true" });
      const disk = { type: "disk", path: "/mnt/p", pool: "b", source: "shifted" };
      arm("at profile.update to be committed");
      await killed(api.ask("PUT", "/profiles/p1", { devices: { disk } }));
      const inside = await enter(pid, "/mnt/p");
      try {
        await daemon.up();
        await assert.rejects(api.ask("PATCH", "/profiles/p1", { description: "later" }), /in use/);
        await again();
        assert.equal((await api.ask("GET", "/profiles/p1") as Profile).description, "later");
        assert.deepEqual(await check(), []);
      } finally {
        inside.stdin!.end();
      }
      await once(inside, "exit");
      await api.ask("PATCH", "/profiles/p1", { config: { "user.note": "1" } });
      assert.ok(!readFileSync(`/proc/${pid}/mountinfo`, "utf8").includes(" /mnt/p "));
      await api.ask("PUT", "/instances/c1/state", { action: "stop", force: true });
      await api.ask("DELETE", "/instances/c1");
      await api.ask("DELETE", "/profiles/p1");
    });
  },
});
