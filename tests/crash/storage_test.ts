/** Every storage operation, interrupted at every point: the daemon is killed, or a host command fails. Afterwards the operation is wholly done or
 * wholly undone, `lido admin check` finds nothing, and every other volume is unchanged. */
import { fastPool, fastPoolRequest } from "../support/daemon.ts";
import { Api, fill, state, writeLater } from "./storage_api.ts";
import { CutOff, isFastAlone, runAll, type Scenario, startDaemon } from "./support.ts";

/** Sizes for pools that are not directories. LVM's volumes have a fixed size, and the pool needs room for metadata. */
const isBlock = fastPool[0] === "lvm";
const sizes = isBlock ? ["1GiB", "512MiB", "1GiB"] : ["256MiB", "128MiB", "300MiB"];
const [large, small, grown] = sizes.map((size) => ({ size, ...(isBlock ? { "volume.size": "32MiB" } : {}) }));
const ofSize = (config: object) => [fastPool[0]!, { ...fastPoolRequest().config, ...config }] as const;

const scenarios: readonly Scenario<Api>[] = [
  {
    name: "pool create, on a loop file",
    run: (api) => api.createPool("new", ...ofSize(small!)),
    reset: (api) => api.deletePool("new"),
  },
  {
    name: "pool delete, on a loop file",
    run: (api) => api.deletePool("e"),
    reset: (api) => api.createPool("e", ...ofSize(small!)),
  },
  {
    name: "pool grow",
    run: (api) => api.ask("PATCH", "/storage-pools/e", { config: { size: grown!.size } }),
    reset: async (api) => {
      await api.deletePool("e");
      await api.createPool("e", ...ofSize(small!));
    },
  },
  { name: "pool create, dir", run: (api) => api.createPool("new", "dir"), reset: (api) => api.deletePool("new") },
  ...(isFastAlone ? ["a"] : ["a", "d"]).flatMap((pool): Scenario<Api>[] => [
    { name: `create (${pool})`, run: (api) => api.create(pool, "new"), reset: (api) => api.delete(pool, "new") },
    {
      name: `delete, with a snapshot (${pool})`,
      run: (api) => api.delete(pool, "gone"),
      reset: (api) => api.copy(pool, pool, "gone"),
    },
    {
      name: `rename (${pool})`,
      run: (api) => api.rename(pool, "work", "other"),
      reset: (api) => api.rename(pool, "other", "work"),
    },
    {
      // Its record's file must not be taken for that of the volume "other".
      name: `rename to a name that begins as those on disk do (${pool})`,
      run: (api) => api.rename(pool, "work", "default_other"),
      reset: (api) => api.rename(pool, "default_other", "work"),
    },
    {
      name: `snapshot (${pool})`,
      run: (api) => api.snapshot(pool, "s1"),
      reset: (api) => api.deleteSnapshot(pool, "s1"),
    },
    {
      name: `snapshot rename (${pool})`,
      run: (api) => api.renameSnapshot(pool, "s0", "other"),
      reset: (api) => api.renameSnapshot(pool, "other", "s0"),
    },
    {
      name: `restore (${pool})`,
      run: (api) => api.restore(pool, "s0"),
      reset: (api) => api.write(pool, "work", writeLater),
    },
    {
      name: `copy within the pool (${pool})`,
      run: (api) => api.copy(pool, pool, "new"),
      reset: (api) => api.delete(pool, "new"),
    },
    {
      name: `import a backup with a snapshot (${pool})`,
      run: (api) => api.import(pool, "new"),
      reset: (api) => api.delete(pool, "new"),
    },
    {
      name: `copy to another driver (${pool})`,
      run: (api) => api.copy(pool, pool === "a" ? "d" : "a", "new"),
      reset: (api) => api.delete(pool === "a" ? "d" : "a", "new"),
    },
    {
      name: `refresh within the pool (${pool})`,
      run: (api) => api.refresh(pool, pool, "keep"),
      reset: (api) => api.refresh(pool, pool, "work"),
    },
    {
      name: `refresh from another driver, but for the snapshots (${pool})`,
      run: (api) => api.refresh(pool === "a" ? "d" : "a", pool, "keep", { volume_only: true }),
      reset: (api) => api.refresh(pool, pool, "work"),
    },
    {
      name: `move to another driver (${pool})`,
      run: (api) => api.move(pool, "work", pool === "a" ? "d" : "a", "moved"),
      reset: (api) => api.move(pool === "a" ? "d" : "a", "moved", pool, "work"),
    },
  ]),
  {
    name: "snapshots of a group, on two pools",
    run: (api) => {
      const volumes = [{ pool: "a", name: "work" }, { pool: "d", name: "work" }, { pool: "a", name: "gone" }];
      return api.ask("POST", "/storage-snapshot-groups", { name: "g", volumes });
    },
    reset: async (api) => {
      await api.deleteSnapshot("a", "g");
      await api.deleteSnapshot("d", "g");
      await api.ask("DELETE", "/storage-pools/a/volumes/custom/gone/snapshots/g");
    },
  },
  {
    name: "copy by the driver's stream",
    run: (api) => api.copy("a", "b", "new"),
    reset: (api) => api.delete("b", "new"),
  },
  // A volume of a block driver always has a size.
  ...(isBlock ? [] : [{
    name: "limit a volume",
    run: (api: Api) => api.set("a", "work", { size: "50MiB" }),
    reset: (api: Api) => api.set("a", "work", { size: "" }),
  }]),
  {
    name: "create with a size",
    run: (api) => api.create("a", "new", { size: "20MiB" }),
    reset: (api) => api.delete("a", "new"),
  },
];

Deno.test("storage operations cut off at every point", async (t) => {
  await using daemon = await startDaemon();
  const api = new Api(daemon.directory);
  await api.createPool("a", ...ofSize(large!));
  await api.createPool("b", ...ofSize(large!));
  await api.createPool("d", "dir");
  await api.createPool("e", ...ofSize(small!));
  for (const pool of ["a", "b", "d"]) {
    for (const name of ["keep", "work"]) {
      await api.create(pool, name);
      await api.write(pool, name, (path) => fill(path, `${pool}${name}`));
      await api.describe(pool, name, `of ${pool}`);
      await api.ask("POST", `/storage-pools/${pool}/volumes/custom/${name}/snapshots`, { name: "s0" });
      await api.write(pool, name, writeLater);
    }
    await api.ask("POST", `/storage-pools/${pool}/volumes/custom/keep/snapshots`, { name: "more" });
    await api.copy(pool, pool, "gone");
  }
  const cutOff = new CutOff(daemon, api, () => state(daemon, api));
  await cutOff.begin();
  if (!await runAll(t, cutOff, scenarios)) return;
  await t.step("a daemon that is killed while it settles what another left", async () => {
    await cutOff.nested(12, (api) => api.copy("d", "a", "new"));
  });
  console.log(`${cutOff.points} points`);
});
