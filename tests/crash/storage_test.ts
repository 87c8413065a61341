/** Every storage operation, cut off at every point: the daemon killed, or a host command failing. Afterwards the operation is wholly done or
 * wholly undone, `lido admin check` finds nothing, and every other volume is as it was. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chownSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Daemon, projectRoot } from "../support/daemon.ts";
import { RawClient } from "../support/raw.ts";
import { findTraces } from "../support/traces.ts";

const argv = [join(projectRoot, "node_modules/.bin/bun"), join(projectRoot, "tests/crash/daemon.ts")];
/** More points than any operation has; one that comes here never ends. */
const pointsMax = 200;

interface Scenario {
  readonly name: string;
  readonly run: (api: Api) => Promise<void>;
  /** Back to what was before, from what is after. */
  readonly reset: (api: Api) => Promise<void>;
}

/** Requests that must succeed; what the daemon's death does to them is the caller's. */
class Api {
  readonly #raw: RawClient;
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    this.#raw = new RawClient(directory);
  }

  volumePath(pool: string, name: string): string {
    return join(this.#directory, "storage-pools", pool, "custom", `default_${name}`);
  }

  // deno-lint-ignore no-explicit-any
  async ask(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<any> {
    const answer = await this.#raw.ask(method, `/1.0${path}`, body, headers);
    if (answer.status >= 400) throw new Error(`${method} ${path}: ${answer.body.error}`);
    if (answer.status !== 202) return answer.body.metadata;
    const operation = await this.#raw.wait(answer.body.metadata.id);
    if (operation.status_code !== 200) throw new Error(`${method} ${path}: ${operation.err}`);
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

/** What there is below a directory: content, owners and modes. */
function digest(path: string): string {
  const hash = createHash("sha256");
  const walk = (at: string, name: string) => {
    const info = lstatSync(at);
    hash.update(`${name} ${info.mode} ${info.uid} ${info.gid} ${info.isDirectory() ? "" : info.size}\n`);
    if (info.isFile()) hash.update(readFileSync(at));
    if (info.isDirectory()) { for (const entry of readdirSync(at).sort()) walk(join(at, entry), `${name}/${entry}`); }
  };
  walk(path, "");
  return hash.digest("hex").slice(0, 16);
}

/** All that users can see of storage, on disk and by the API; times and ids apart. */
async function state(daemon: Daemon, api: Api): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
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

const scenarios: readonly Scenario[] = [
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
  ...["a", "d"].flatMap((pool): Scenario[] => [
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
  await using daemon = await Daemon.start({ argv });
  let api = new Api(daemon.directory);
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
  const again = async (fault?: string, options: { isKilled?: boolean; fromStart?: boolean } = {}) => {
    if (!options.isKilled) await daemon.terminate();
    daemon.faults = { LIDO_FAULT: fault ?? "", LIDO_FAULT_START: options.fromStart ? "1" : "" };
    await daemon.up();
    api = new Api(daemon.directory);
  };
  const loops = () => findTraces(daemon.directory).loops.length;
  const mounts = () => findTraces(daemon.directory).mounts.length;
  const before = await state(daemon, api);
  const host = { loops: loops(), mounts: mounts() };
  let points = 0;

  /** @returns Whether the operation was done. */
  const isWhole = async (after: Record<string, string>, what: string): Promise<boolean> => {
    assert.deepEqual(await api.ask("POST", "/check", {}), [], `${what}: check`);
    const now = await state(daemon, api);
    const isDone = JSON.stringify(sorted(now)) === JSON.stringify(sorted(after));
    if (!isDone) assert.deepEqual(now, before, what);
    return isDone;
  };

  // One that failed leaves another state than the next begins with.
  let isIntact = true;
  for (const scenario of scenarios) {
    if (!isIntact) break;
    isIntact = await t.step(scenario.name, async () => {
      await scenario.run(api);
      const after = await state(daemon, api);
      assert.notDeepEqual(after, before);
      await scenario.reset(api);
      assert.deepEqual(await state(daemon, api), before, "the scenario does not reset");
      for (const mode of ["kill", "fail"]) {
        for (let point = 1;; point++) {
          assert.ok(point < pointsMax, "no end of points");
          const what = `${scenario.name}, ${mode} at point ${point}`;
          await again(`${mode}:${point}`);
          const outcome = await scenario.run(api).then(() => "ended", (error) => String(error));
          const isKilled = mode === "kill" && outcome !== "ended";
          if (isKilled) await daemon.ended;
          if (mode === "fail" && outcome !== "ended") {
            // The daemon lives: it must have brought it to one of the two ends itself, at once.
            await isWhole(after, `${what} (${outcome}), at once`);
          }
          await again(undefined, { isKilled });
          if (await isWhole(after, `${what} (${outcome})`)) await scenario.reset(api);
          assert.deepEqual({ loops: loops(), mounts: mounts() }, host, `${what}: left behind`);
          points++;
          if (outcome === "ended" && !isKilled) break;
        }
      }
    });
  }

  if (!isIntact) return;
  await t.step("a daemon that is killed while it settles what another left", async () => {
    for (let point = 1; point < pointsMax; point++) {
      await again("kill:12");
      await assert.rejects(api.copy("d", "a", "new"), "the copy has fewer points");
      await daemon.ended;
      daemon.faults = { LIDO_FAULT: `kill:${point}`, LIDO_FAULT_START: "1" };
      const isUp = await daemon.up().then(() => true, () => false);
      if (!isUp) await daemon.ended;
      await again(undefined, { isKilled: !isUp });
      if (await isWhole({}, `killed at point ${point} of the start`)) assert.fail("done");
      points++;
      if (isUp) return;
    }
  });
  console.log(`${points} points`);
});

function sorted(value: Record<string, string>): [string, string][] {
  return Object.entries(value).sort(([left], [right]) => left < right ? -1 : 1);
}
