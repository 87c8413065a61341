import { readdir, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { LidoError, messageOf } from "../../api/errors.ts";
import type { CheckProblem } from "../../api/types.ts";
import type { Host } from "../../drivers/host/host.ts";
import type { Driver, Volume } from "../../drivers/storage/driver.ts";
import type { Paths } from "../context.ts";
import type { Journal } from "../journal/journal.ts";
import type { Records } from "../records/records.ts";
import type { Database } from "../state/database.ts";
import type { Pools } from "../storage/pools.ts";
import { deleteVolumeRow, fromDisk, onDisk } from "../storage/rows.ts";
import type { Volumes } from "../storage/volumes.ts";

export interface CheckOptions {
  readonly database: Database;
  readonly journal: Journal;
  readonly host: Host;
  readonly pools: Pools;
  readonly volumes: Volumes;
  readonly paths: Paths;
  readonly records: Pick<Records, "idle" | "verify">;
}

interface Found extends Omit<CheckProblem, "repaired" | "can_repair"> {
  /** Absent when mending it would mean to throw data away, or needs a person. */
  readonly repair?: () => Promise<void>;
}

/** Compares the database with the host, in the manner of fsck: what is on disk and nowhere else, what is nowhere but in the database, and what a
 * cut-off operation left. Volumes with an operation on them are passed over. */
export class Check {
  readonly #options: CheckOptions;

  constructor(options: CheckOptions) {
    this.#options = options;
  }

  /** @param repair Mends what can be mended without losing data. @returns What is wrong, in a settled order. */
  async run(repair: boolean): Promise<CheckProblem[]> {
    const problems: CheckProblem[] = [];
    for (const part of [() => this.#intents(), () => this.#pools(), () => this.#instances(), () => this.#host()]) {
      for (const { repair: mend, ...found } of await part()) {
        const problem = { ...found, can_repair: mend !== undefined, repaired: false };
        problems.push(problem);
        if (!repair || !mend) continue;
        try {
          await mend();
          problem.repaired = true;
        } catch (error) {
          problem.problem += `; not repaired: ${messageOf(error)}`;
        }
      }
    }
    return problems;
  }

  #intents(): Promise<Found[]> {
    const { journal } = this.#options;
    return Promise.resolve(
      journal.unsettled().map(({ id, kind, payload }) => ({
        subject: `journal/${id}`,
        problem: `An operation was cut off and could not be settled: ${kind} ${payload}`,
        repair: () => journal.settle(id),
      })),
    );
  }

  async #pools(): Promise<Found[]> {
    const { pools } = this.#options;
    const found: Found[] = [];
    for (const { name, status, reason } of pools.list()) {
      if (status === "Unavailable") {
        const repair = async () => {
          await pools.retry();
          pools.driver(name);
        };
        found.push({ subject: `pool/${name}`, problem: `The pool is unavailable: ${reason}`, repair });
      }
      // The others have an intent, which speaks for them.
      if (status !== "Created") continue;
      found.push(...await this.#pool(name, pools.driver(name)));
      found.push(...await this.#records(name));
    }
    return found;
  }

  async #pool(pool: string, driver: Driver): Promise<Found[]> {
    const { database, volumes } = this.#options;
    const known = new Map<string, Volume>();
    const add = (volume: Volume) => known.set(keyOf(volume), volume);
    const rows = database.all(
      "SELECT id, type, name FROM storage_volumes WHERE pool_id = (SELECT id FROM storage_pools WHERE name = ?)",
      pool,
    );
    for (const row of rows) {
      const volume = onDisk(String(row.type) as Volume["type"], String(row.name));
      add(volume);
      const snapshots = volume.type === "container"
        ? database.all(
          "SELECT name FROM instance_snapshots WHERE instance_id = (SELECT id FROM instances WHERE name = ?)",
          volume.name,
        )
        : volumes.snapshotRows(Number(row.id));
      for (const snapshot of snapshots) add({ ...volume, snapshot: String(snapshot.name) });
    }
    const isBusy = (volume: Volume) => volumes.isBusy(pool, volume);
    const present = new Map((await driver.list()).map((volume) => [keyOf(volume), volume]));
    const found: Found[] = [];
    for (const [key, volume] of present) {
      if (known.has(key) || isBusy(volume)) continue;
      const problem = `It is on disk but not known; "lido admin recover" makes it known again`;
      found.push({ subject: `pool/${pool}/${key}`, problem });
    }
    for (const [key, volume] of known) {
      if (present.has(key) || isBusy(volume)) continue;
      const isSnapshot = volume.snapshot !== undefined;
      // Without its parent it is the parent that is missing.
      if (isSnapshot && !present.has(keyOf({ type: volume.type, name: volume.name }))) continue;
      found.push({
        subject: `pool/${pool}/${key}`,
        problem: "It is known but not on disk",
        ...(volume.type === "custom" ? { repair: () => this.#forget(pool, volume) } : {}),
      });
    }
    const busy = new Set([...known.values(), ...present.values()].filter(isBusy).map(({ name }) => name));
    for (const { place, of } of await driver.leftovers()) {
      if (busy.has(of)) continue;
      found.push({
        subject: `pool/${pool}/${place}`,
        problem: "A cut-off operation left it; the daemon's next start takes it away",
      });
    }
    return found;
  }

  async #records(pool: string): Promise<Found[]> {
    const { records } = this.#options;
    await records.idle();
    const wrong = await records.verify(pool, true);
    const repair = async () => {
      const left = await records.verify(pool).then(() => records.verify(pool, true));
      if (left.length > 0) throw new LidoError("internal", left.join("; "));
    };
    return wrong.map((subject) => ({
      subject: `pool/${pool}/records/${subject}`,
      problem: "What recovery would need is missing or old",
      repair,
    }));
  }

  // deno-lint-ignore require-await -- async for the list in `run`
  async #instances(): Promise<Found[]> {
    const { database } = this.#options;
    const without = database.all(
      `SELECT name FROM instances WHERE name NOT IN (SELECT name FROM storage_volumes WHERE type = 'container')`,
    );
    const orphans = database.all(
      `SELECT storage_volumes.name AS name, storage_pools.name AS pool FROM storage_volumes
       JOIN storage_pools ON storage_pools.id = pool_id
       WHERE type = 'container' AND storage_volumes.name NOT IN (SELECT name FROM instances)`,
    );
    return [
      ...without.map(({ name }) => ({ subject: `instance/${name}`, problem: "The instance has no root volume" })),
      ...orphans.map(({ pool, name }) => ({
        subject: `pool/${pool}/container/${name}`,
        problem: "The volume is known but no instance has it",
      })),
    ];
  }

  /** What is in our directories, mounted there or attached from there, and belongs to no pool or image. */
  async #host(): Promise<Found[]> {
    const { database, host, pools, paths } = this.#options;
    const names = new Set(pools.names());
    const found: Found[] = [];
    const mounts = await host.mounts.list();
    for (const name of await readdir(paths.storagePools)) {
      if (names.has(name) || pools.isBusy(name)) continue;
      const root = join(paths.storagePools, name);
      if (mounts.some(({ target }) => target === root)) {
        found.push({ subject: root, problem: "It is mounted, and no pool's", repair: () => host.mounts.unmount(root) });
      }
      found.push({ subject: root, problem: "The directory is no pool's", repair: () => rmdir(root) });
    }
    for (const file of await readdir(paths.disks)) {
      const pool = file.replace(/\.img$/, "");
      if (names.has(pool) || pools.isBusy(pool)) continue;
      const path = join(paths.disks, file);
      for (const device of await host.loops.find(path)) {
        found.push({
          subject: device,
          problem: `It is attached to "${path}", and no pool's`,
          repair: () => host.loops.detach(device),
        });
      }
      found.push({ subject: path, problem: "The file is no pool's; it may hold data" });
    }
    const images = new Set(database.all("SELECT fingerprint FROM images").map((row) => String(row.fingerprint)));
    for (const file of await readdir(paths.images)) {
      const fingerprint = file.replace(/\.rootfs$/, "");
      if (images.has(fingerprint) || !/^[0-9a-f]{64}$/.test(fingerprint)) continue;
      const path = join(paths.images, file);
      found.push({ subject: path, problem: "The file is no image's; it may be imported again, or deleted" });
    }
    for (const fingerprint of images) {
      if (!(await readdir(paths.images)).includes(fingerprint)) {
        found.push({ subject: `image/${fingerprint}`, problem: "Its file is gone" });
      }
    }
    return found;
  }

  /** @throws {LidoError} When somebody uses it. */
  async #forget(pool: string, volume: Volume): Promise<void> {
    const { database, volumes } = this.#options;
    if (volume.snapshot !== undefined) {
      const row = volumes.row(pool, "custom", fromDisk(volume));
      database.run("DELETE FROM storage_volume_snapshots WHERE volume_id = ? AND name = ?", row.id!, volume.snapshot);
      return;
    }
    volumes.refuseUsed(pool, fromDisk(volume), "The storage volume is still in use");
    deleteVolumeRow(database, pool, volume.type, fromDisk(volume));
    await Promise.resolve();
  }
}

/** For people: `custom/v`, `custom/v/snapshot`. */
function keyOf(volume: Volume): string {
  const name = `${volume.type}/${fromDisk(volume)}`;
  return volume.snapshot === undefined ? name : `${name}/${volume.snapshot}`;
}
