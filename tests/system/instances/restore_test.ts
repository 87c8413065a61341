/** A restored snapshot's state beside its content: the instance's location, its profiles, its limit, and the owners of its files. */
import assert from "node:assert/strict";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

interface Instance {
  readonly profiles: string[];
  readonly config: Record<string, string>;
  readonly devices: Record<string, Record<string, string>>;
  readonly expanded_devices: Record<string, Record<string, string>>;
}

Deno.test("restores bring back more than content", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  const instance = async (name: string) => await daemon.query(`/1.0/instances/${name}`) as Instance;
  const whole = async () => assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);

  await t.step("an instance that was copied to another pool stays there", async () => {
    await daemon.ok("init", "bb", "c1", "-s", "fast");
    await daemon.ok("snapshot", "c1", "own");
    await daemon.ok("init", "bb", "c2"); // its root disk comes from the profile
    await daemon.ok("snapshot", "c2", "profiles");
    for (const [name, snapshot] of [["c1", "own"], ["c2", "profiles"]] as const) {
      await daemon.ok("copy", name, `${name}copy`, "-s", "plain");
      await daemon.ok("restore", `${name}copy`, snapshot);
      const { expanded_devices } = await instance(`${name}copy`);
      const roots = Object.values(expanded_devices).filter((device) => device.path === "/");
      assert.deepEqual(roots.map(({ pool }) => pool), ["plain"]);
      await daemon.ok("start", `${name}copy`);
      await daemon.ok("delete", "-f", `${name}copy`);
      await whole();
      await daemon.ok("delete", name);
    }
  });

  await t.step("a profile that is gone is left out and named, one that was renamed is found", async () => {
    for (const name of ["gone", "old"]) await daemon.ok("profile", "create", name);
    await daemon.ok("profile", "device", "add", "gone", "root", "disk", "path=/", "pool=plain");
    await daemon.ok("init", "bb", "c1", "-p", "gone", "-p", "old");
    await daemon.ok("snapshot", "c1", "s0");
    await daemon.ok("config", "device", "add", "c1", "root", "disk", "path=/", "pool=plain");
    await daemon.ok("profile", "assign", "c1", "old");
    await daemon.ok("profile", "delete", "gone");
    await daemon.ok("profile", "rename", "old", "new");
    const { code, out, err } = await daemon.lido(["restore", "c1", "s0"]);
    assert.equal(code, 0, err);
    assert.match(out + err, /Profiles that are not there any more were left out: "gone"/);
    assert.deepEqual((await instance("c1")).profiles, ["new"]);
    await daemon.ok("config", "set", "c1", "user.a=1");
    // A copy of the snapshot has the snapshot's settings, without the deleted profile.
    const copied = await daemon.lido(["copy", "c1/s0", "c2"]);
    assert.equal(copied.err, 'Note: Profiles that are not there any more were left out: "gone"\n');
    const { profiles, config } = await instance("c2");
    assert.deepEqual([profiles, config["user.a"]], [["new"], undefined]);
    await daemon.ok("start", "c1");
    await daemon.ok("delete", "-f", "c1", "c2");
    await daemon.ok("profile", "delete", "new");
    await whole();
  });

  await t.step("the root disk's limit is the restored one", async () => {
    const total = async () =>
      (await daemon.query("/1.0/instances/c1/state") as { disk: Record<string, { total: number }> }).disk.root?.total;
    await daemon.ok("init", "bb", "c1", "-d", "root,size=300MiB");
    await daemon.ok("snapshot", "c1", "s0");
    await daemon.ok("config", "device", "set", "c1", "root", "size=500MiB");
    assert.equal(await total(), 500 * 1024 ** 2);
    await daemon.ok("copy", "c1/s0", "c2");
    assert.equal((await instance("c2")).devices.root!.size, "300MiB");
    await daemon.ok("delete", "c2");
    await daemon.ok("restore", "c1", "s0");
    assert.equal((await instance("c1")).devices.root!.size, "300MiB");
    assert.equal(await total(), 300 * 1024 ** 2);
    await daemon.ok("delete", "c1");
  });

  await t.step("a volume's files are whose they were in the snapshot", async () => {
    await daemon.ok("init", "bb", "c1");
    await daemon.ok("start", "c1");
    for (const pool of ["fast", "plain"]) {
      await daemon.ok("storage", "volume", "create", pool, "v");
      await daemon.ok("storage", "volume", "snapshot", pool, "v", "before");
      await daemon.ok("storage", "volume", "attach", pool, "v", "c1", "/mnt");
      await daemon.ok("exec", "c1", "--", "sh", "-c", "echo 1 > /mnt/file");
      await daemon.ok("storage", "volume", "detach", pool, "v", "c1");
      await daemon.ok("storage", "volume", "snapshot", pool, "v", "after");
      for (const snapshot of ["before", "after"]) {
        await daemon.ok("storage", "volume", "restore", pool, "v", snapshot);
        await daemon.ok("storage", "volume", "attach", pool, "v", "c1", "/mnt");
        assert.equal(await daemon.ok("exec", "c1", "--", "stat", "-c", "%u %g", "/mnt"), "0 0", `${pool} ${snapshot}`);
        await daemon.ok("exec", "c1", "--", "sh", "-c", "echo 2 > /mnt/file");
        await daemon.ok("storage", "volume", "detach", pool, "v", "c1");
      }
      await daemon.ok("storage", "volume", "delete", pool, "v");
    }
    await daemon.ok("delete", "-f", "c1");
    await whole();
  });
});
