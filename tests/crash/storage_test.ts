/** Every storage operation, cut off at every point: the daemon killed, or a host command failing. Afterwards the operation is wholly done or
 * wholly undone, `lido admin check` finds nothing, and every other volume is as it was. */
import { chownSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Daemon, projectRoot } from "../support/daemon.ts";
import { CutOff, digest, Requests, runAll, type Scenario, startDaemon, type State } from "./support.ts";

class Api extends Requests {
  volumePath(pool: string, name: string): string {
    return join(this.directory, "storage-pools", pool, "custom", `default_${name}`);
  }

  createPool(name: string, driver: string, config: object = {}) {
    return this.ask("POST", "/storage-pools", { name, driver, config });
  }

  deletePool(name: string) {
    return this.ask("DELETE", `/storage-pools/${name}`);
  }

  create(pool: string, name: string, config: object = {}, source: object = {}) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom`, { name, type: "custom", config, source });
  }

  copy(from: string, pool: string, name: string) {
    return this.create(pool, name, {}, { type: "copy", pool: from, name: "work" });
  }

  delete(pool: string, name: string) {
    return this.ask("DELETE", `/storage-pools/${pool}/volumes/custom/${name}`);
  }

  rename(pool: string, name: string, to: string) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom/${name}`, { name: to });
  }

  move(pool: string, name: string, toPool: string, to: string) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom/${name}`, { name: to, pool: toPool });
  }

  snapshot(pool: string, name: string) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom/work/snapshots`, { name });
  }

  renameSnapshot(pool: string, name: string, to: string) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom/work/snapshots/${name}`, { name: to });
  }

  deleteSnapshot(pool: string, name: string) {
    return this.ask("DELETE", `/storage-pools/${pool}/volumes/custom/work/snapshots/${name}`);
  }

  restore(pool: string, snapshot: string) {
    return this.ask("PUT", `/storage-pools/${pool}/volumes/custom/work`, { restore: snapshot });
  }

  import(pool: string, name: string) {
    const headers = { "content-type": "application/octet-stream", "x-lxd-name": name };
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom`, backup, headers);
  }

  set(pool: string, name: string, config: object) {
    return this.ask("PATCH", `/storage-pools/${pool}/volumes/custom/${name}`, { config });
  }
}

const backup = readFileSync(join(projectRoot, "tests/fixtures/lxd-5.0.2-volume.tar.gz"));

/** All that users can see of storage, on disk and by the API; times and ids apart. */
async function state(daemon: Daemon, api: Api): Promise<State> {
  const found: State = {};
  for (const pool of await api.ask("GET", "/storage-pools?recursion=1")) {
    const { space } = await api.ask("GET", `/storage-pools/${pool.name}/resources`);
    const total = pool.driver === "dir" ? "the host's" : space.total;
    found[pool.name] = JSON.stringify([pool.driver, pool.config, pool.status, total]);
    for (const volume of await api.ask("GET", `/storage-pools/${pool.name}/volumes/custom?recursion=1`)) {
      const root = join(daemon.directory, "storage-pools", pool.name);
      const at = `${pool.name}/${volume.name}`;
      found[at] = JSON.stringify([volume.config, digest(join(root, "custom", `default_${volume.name}`))]);
      const path = `/storage-pools/${pool.name}/volumes/custom/${volume.name}/snapshots?recursion=1`;
      for (const snapshot of await api.ask("GET", path)) {
        found[`${at}/${snapshot.name}`] = digest(
          join(root, "custom-snapshots", `default_${volume.name}`, snapshot.name),
        );
      }
    }
  }
  return found;
}

function fill(directory: string, seed: string): void {
  mkdirSync(join(directory, "sub"), { recursive: true });
  for (let index = 0; index < 5; index++) {
    writeFileSync(join(directory, "sub", `f${index}`), seed.repeat(1000 * (index + 1)));
  }
  writeFileSync(join(directory, "owned"), seed, { mode: 0o640 });
  chownSync(join(directory, "owned"), 1234, 5678);
}

function writeLater(volume: string): void {
  writeFileSync(join(volume, "later"), "after the snapshot");
}

const scenarios: readonly Scenario<Api>[] = [
  {
    name: "pool create, btrfs on a loop file",
    run: (api) => api.createPool("new", "btrfs", { size: "128MiB" }),
    reset: (api) => api.deletePool("new"),
  },
  {
    name: "pool delete, btrfs on a loop file",
    run: (api) => api.deletePool("e"),
    reset: (api) => api.createPool("e", "btrfs", { size: "128MiB" }),
  },
  {
    name: "pool grow",
    run: (api) => api.ask("PATCH", "/storage-pools/e", { config: { size: "300MiB" } }),
    reset: async (api) => {
      await api.deletePool("e");
      await api.createPool("e", "btrfs", { size: "128MiB" });
    },
  },
  { name: "pool create, dir", run: (api) => api.createPool("new", "dir"), reset: (api) => api.deletePool("new") },
  ...["a", "d"].flatMap((pool): Scenario<Api>[] => [
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
      reset: (api) => Promise.resolve(writeLater(api.volumePath(pool, "work"))),
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
      name: `move to another driver (${pool})`,
      run: (api) => api.move(pool, "work", pool === "a" ? "d" : "a", "moved"),
      reset: (api) => api.move(pool === "a" ? "d" : "a", "moved", pool, "work"),
    },
  ]),
  {
    name: "copy by the driver's stream",
    run: (api) => api.copy("a", "b", "new"),
    reset: (api) => api.delete("b", "new"),
  },
  {
    name: "limit a volume (btrfs)",
    run: (api) => api.set("a", "work", { size: "50MiB" }),
    reset: (api) => api.set("a", "work", { size: "" }),
  },
  {
    name: "create with a size (btrfs)",
    run: (api) => api.create("a", "new", { size: "20MiB" }),
    reset: (api) => api.delete("a", "new"),
  },
];

Deno.test("storage operations cut off at every point", async (t) => {
  await using daemon = await startDaemon();
  const api = new Api(daemon.directory);
  await api.createPool("a", "btrfs", { size: "256MiB" });
  await api.createPool("b", "btrfs", { size: "256MiB" });
  await api.createPool("d", "dir");
  await api.createPool("e", "btrfs", { size: "128MiB" });
  for (const pool of ["a", "b", "d"]) {
    for (const name of ["keep", "work"]) {
      await api.create(pool, name);
      const path = api.volumePath(pool, name);
      fill(path, `${pool}${name}`);
      await api.ask("POST", `/storage-pools/${pool}/volumes/custom/${name}/snapshots`, { name: "s0" });
      writeLater(path);
    }
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
