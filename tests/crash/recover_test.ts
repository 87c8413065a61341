/** Recovery after a lost database, with the daemon killed during recovery or while the database is lost. */
import assert from "node:assert/strict";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { RecoverResult } from "../../api/types.ts";
import type { Daemon } from "../support/daemon.ts";
import { digest, Requests, startDaemon } from "./support.ts";

const pointsMax = 100;

class Api extends Requests {
  path(pool: string, name: string): string {
    return join(this.directory, "storage-pools", pool, "custom", `default_${name}`);
  }

  volumes(pool: string, rest = "") {
    return `/storage-pools/${pool}/volumes/custom${rest}`;
  }

  async recover(verb: string, more: object = {}): Promise<RecoverResult> {
    const found = (await this.raw.ask("GET", "/internal/recover/pools")).body.metadata as { name: string }[];
    const known = await this.ask("GET", "/storage-pools?recursion=1") as { name: string }[];
    const pools = [
      ...known.map(({ name }) => ({ name })),
      ...found.map((pool) => ({ ...pool, config: { source: (pool as unknown as { source: string }).source } })),
    ];
    const { status, body } = await this.raw.ask("POST", `/internal/recover/${verb}`, { pools, ...more });
    if (status >= 400) throw new Error(body.error);
    return body.metadata as RecoverResult;
  }
}

/** Restarts the daemon without its database. */
async function lose(daemon: Daemon, isKilled: boolean): Promise<void> {
  if (!isKilled) await daemon.terminate();
  for (const end of ["", "-wal", "-shm"]) rmSync(join(daemon.directory, `lido.db${end}`), { force: true });
  await daemon.up();
}

let armed = 0;
/** @param point Point at which the daemon is killed; 0: none. */
function arm(daemon: Daemon, point: number): void {
  const file = `${daemon.directory}.fault`;
  if (point === 0) rmSync(file, { force: true });
  else writeFileSync(file, `kill ${point} recover${armed++}`);
}

async function furnish(api: Api): Promise<void> {
  await api.ask("POST", "/storage-pools", { name: "a", driver: "btrfs", config: { size: "256MiB" } });
  await api.ask("POST", "/storage-pools", { name: "d", driver: "dir", config: {} });
  for (const pool of ["a", "d"]) {
    for (const name of ["one", "two"]) {
      await api.ask("POST", api.volumes(pool), { name, type: "custom", config: { "user.note": name } });
      mkdirSync(join(api.path(pool, name), "sub"));
      for (let index = 0; index < 20; index++) writeFileSync(join(api.path(pool, name), "sub", `f${index}`), name);
      await api.ask("POST", api.volumes(pool, `/${name}/snapshots`), { name: "s0" });
    }
    const devices = { root: { type: "disk", path: "/", pool } };
    await api.ask("POST", "/instances", { name: `c-${pool}`, devices, source: { type: "none" } });
    await api.ask("POST", `/instances/c-${pool}/snapshots`, { name: "s0" });
  }
}

async function state(api: Api): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  for (const pool of await api.ask("GET", "/storage-pools?recursion=1")) {
    found[pool.name] = pool;
    found[`${pool.name}/volumes`] = await api.ask("GET", `/storage-pools/${pool.name}/volumes/custom?recursion=1`);
    for (const name of ["one", "two"]) {
      found[`${pool.name}/${name}`] = [
        await api.ask("GET", api.volumes(pool.name, `/${name}/snapshots?recursion=1`)),
        digest(api.path(pool.name, name)),
      ];
    }
  }
  for (const { last_used_at: _, config, ...instance } of await api.ask("GET", "/instances?recursion=1")) {
    const { "volatile.last_state.power": _power, ...kept } = config;
    found[instance.name] = { ...instance, expanded_config: 0, config: kept };
    found[`${instance.name}/*`] = await api.ask("GET", `/instances/${instance.name}/snapshots?recursion=1`);
  }
  return found;
}

Deno.test("a recovery that is killed at any point is finished by another; nothing is recovered twice", async () => {
  await using daemon = await startDaemon();
  const api = new Api(daemon.directory);
  await furnish(api);
  const before = await state(api);
  for (let point = 1;; point++) {
    assert.ok(point < pointsMax, "no end of points");
    await lose(daemon, false);
    arm(daemon, point);
    const outcome = await api.recover("import").then(() => "ended", (error) => String(error));
    arm(daemon, 0);
    if (outcome !== "ended") {
      await daemon.ended;
      await daemon.up();
      await api.recover("import");
    }
    const what = `killed at point ${point} (${outcome})`;
    assert.deepEqual(await state(api), before, what);
    const again = await api.recover("validate");
    assert.deepEqual(again, { UnknownVolumes: [], DependencyErrors: [], Problems: [], UnknownImages: [] }, what);
    assert.deepEqual(await api.ask("POST", "/check", {}), [], what);
    if (outcome === "ended") {
      console.log(`${point} points`);
      break;
    }
  }
});

Deno.test("the database is lost while something is taken away: what is recovered is whole, or it is said", async (t) => {
  await using daemon = await startDaemon();
  const api = new Api(daemon.directory);
  await furnish(api);
  const whole = new Map(["a", "d"].map((pool) => [pool, digest(api.path(pool, "two"))]));
  const works: Record<string, (pool: string) => Promise<unknown>> = {
    "deletes a volume": (pool) => api.ask("DELETE", api.volumes(pool, "/two")),
    "deletes a snapshot": (pool) => api.ask("DELETE", api.volumes(pool, "/two/snapshots/s0")),
    "restores": (pool) => api.ask("PUT", api.volumes(pool, "/two"), { restore: "s0" }),
  };
  for (const pool of ["a", "d"]) {
    for (const [name, work] of Object.entries(works)) {
      await t.step(`${name} (${pool})`, async () => {
        for (let point = 1;; point++) {
          assert.ok(point < pointsMax, "no end of points");
          arm(daemon, point);
          const outcome = await work(pool).then(() => "ended", (error) => String(error));
          arm(daemon, 0);
          const isKilled = outcome !== "ended";
          if (isKilled) await daemon.ended;
          await lose(daemon, isKilled);
          const { Problems } = await api.recover("import");
          const what = `${name}, point ${point} (${outcome}): ${Problems}`;
          const found = await api.ask("GET", `${api.volumes(pool)}?recursion=1`) as { name: string }[];
          const isThere = found.some((volume) => volume.name === "two");
          if (isThere) assert.equal(digest(api.path(pool, "two")), whole.get(pool), what);
          const isSaid = Problems.some((text) => text.includes("default_two"));
          if (isKilled && !isThere && !isSaid) {
            // The volume is neither on disk nor reported: the deletion was complete.
            assert.throws(() => digest(api.path(pool, "two")), what);
          }
          // Restore the state that the next round begins with.
          if (!isThere) {
            await api.recover("import", { force: true });
            await api.ask("DELETE", api.volumes(pool, "/two")).catch(() => {});
            await api.ask("POST", api.volumes(pool), {
              name: "two",
              type: "custom",
              source: { type: "copy", pool, name: "one" },
            });
            for (let index = 0; index < 20; index++) {
              writeFileSync(join(api.path(pool, "two"), "sub", `f${index}`), "two");
            }
          } else {
            const snapshots = await api.ask("GET", api.volumes(pool, "/two/snapshots?recursion=1")) as unknown[];
            // Deleting a volume whose half-deleted snapshot was not recovered also deletes that snapshot.
            if (snapshots.length === 0) {
              rmSync(join(api.directory, "storage-pools", pool, "custom-snapshots/default_two"), {
                recursive: true,
                force: true,
              });
              await api.ask("POST", api.volumes(pool, "/two/snapshots"), { name: "s0" });
            }
          }
          if (outcome === "ended") break;
        }
      });
    }
  }
});
