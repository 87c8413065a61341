import { readdir, realpath, rmdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { LidoError, messageOf } from "../../api/errors.ts";
import type { CheckProblem } from "../../api/types.ts";
import type { Host } from "../../drivers/host/host.ts";
import type { Runtime } from "../../drivers/runtime/runtime.ts";
import type { Driver, Leftover, Volume } from "../../drivers/storage/driver.ts";
import { fromDisk, recordsDirectory } from "../../drivers/storage/layout.ts";
import type { Paths } from "../paths.ts";
import type { Journal } from "../journal/journal.ts";
import type { Records } from "../records/records.ts";
import type { Database } from "../state/database.ts";
import type { MountedVolumes } from "../pools/mounted.ts";
import type { Pools } from "../pools/pools.ts";
import { forgetVolume, onDisk } from "../store/rows.ts";
import { lockName, type Volumes } from "../volumes/volumes.ts";

export interface CheckOptions {
  readonly database: Database;
  readonly journal: Journal;
  readonly host: Host;
  readonly runtime: Runtime;
  readonly pools: Pools;
  readonly volumes: Volumes;
  readonly mounts: MountedVolumes;
  readonly paths: Paths;
  readonly records: Pick<Records, "idle" | "verify">;
}

interface Problem extends Omit<CheckProblem, "repaired" | "can_repair"> {
  /** Absent when a repair would lose data, or needs a person's decision. */
  readonly repair?: () => Promise<void>;
}

/** Compares the database with the host, like fsck: finds what is only on disk, what is only in the database, and the leftovers of interrupted
 * operations. Volumes with a running operation are skipped. */
export class Check {
  readonly #options: CheckOptions;

  constructor(options: CheckOptions) {
    this.#options = options;
  }

  /** @param repair Whether to repair what can be repaired without losing data. @returns The problems, in a fixed order. */
  async run(repair: boolean): Promise<CheckProblem[]> {
    const problems: CheckProblem[] = [];
    // Pools first: the open intents of a pool that becomes available can then be rolled back or completed.
    const parts = [() => this.#away(), () => this.#intents(), () => this.#pools()];
    for (const part of [...parts, () => this.#instances(), () => this.#host()]) {
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

  #intents(): Promise<Problem[]> {
    const { journal } = this.#options;
    return Promise.resolve(
      journal.unsettled().map(({ id, kind, payload }) => ({
        subject: `journal/${id}`,
        problem: `An operation was cut off and could not be settled: ${kind} ${payload}`,
        repair: () => journal.settle(id),
      })),
    );
  }

  #away(): Promise<Problem[]> {
    const { pools } = this.#options;
    const away = pools.list().filter(({ status }) => status === "Unavailable");
    return Promise.resolve(away.map(({ name, reason }) => {
      const repair = async () => {
        await pools.retry();
        pools.driver(name);
      };
      return { subject: `pool/${name}`, problem: `The pool is unavailable: ${reason}`, repair };
    }));
  }

  async #pools(): Promise<Problem[]> {
    const { pools } = this.#options;
    const found: Problem[] = [];
    for (const { name, status } of pools.list()) {
      // A pool in another state has an open intent, which is reported instead.
      if (status !== "Created") continue;
      try {
        found.push(...await this.#pool(name, await pools.ready(name)), ...await this.#records(name));
      } catch (error) {
        // Go on with the other pools.
        found.push({
          subject: `pool/${name}`,
          problem: `It cannot be looked at: ${messageOf(pools.sources.explain(error))}`,
        });
      }
    }
    return found;
  }

  async #pool(pool: string, driver: Driver): Promise<Problem[]> {
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
    const found: Problem[] = [];
    for (const [key, volume] of present) {
      if (known.has(key) || isBusy(volume)) continue;
      const unfit = await driver.unfit?.(volume).catch(() => undefined); // deleted meanwhile
      const isAlone = volume.snapshot !== undefined && !present.has(keyOf({ type: volume.type, name: volume.name }));
      const problem = isAlone
        ? "It is on disk without its volume, and not known: nobody but you can tell whether it is needed"
        : unfit !== undefined
        ? `It is on disk but not known, and cannot be made known: ${unfit}`
        : volume.type === "image"
        ? `It is an unpacked copy of an image that is not known; "lido admin recover --drop-images" deletes it`
        : `It is on disk but not known; "lido admin recover" makes it known again`;
      found.push({ subject: `pool/${pool}/${key}`, problem });
    }
    for (const [key, volume] of known) {
      if (present.has(key) || isBusy(volume)) continue;
      const isSnapshot = volume.snapshot !== undefined;
      // If the parent volume is missing too, only the parent is reported.
      if (isSnapshot && !present.has(keyOf({ type: volume.type, name: volume.name }))) continue;
      found.push({
        subject: `pool/${pool}/${key}`,
        problem: "It is known but not on disk",
        ...(volume.type === "custom" ? { repair: () => this.#forget(pool, volume) } : {}),
      });
    }
    const busy = new Set([...known.values(), ...present.values()].filter(isBusy).map(({ name }) => name));
    for (const leftover of await driver.leftovers()) {
      if (busy.has(leftover.of)) continue;
      found.push({
        subject: `pool/${pool}/${leftover.place}`,
        problem: "A cut-off operation left it",
        repair: () => this.#remove(pool, driver, leftover),
      });
    }
    found.push(...await this.#mounts(driver, [...present.values()]));
    return found;
  }

  /** Removes a leftover. An operation begun meanwhile may use the same place again: under the volume's lock, a leftover there belongs to none. */
  async #remove(pool: string, driver: Driver, { place, of }: Leftover): Promise<void> {
    const { locks } = this.#options.volumes;
    await locks.hold(types.map((type) => lockName(pool, { type, name: of })), async () => {
      await (await driver.leftovers()).find((one) => one.place === place)?.remove();
    });
  }

  /** Finds mounts within a pool that lido did not make, or that nothing uses: they hide the files below them, and keep the pool busy. */
  async #mounts(driver: Driver, present: readonly Volume[]): Promise<Problem[]> {
    const { host, mounts, volumes } = this.#options;
    const { name: pool, root } = driver.pool;
    const ours = new Set([root, join(root, recordsDirectory)]);
    if (driver.mountsVolumes) {
      const isInUse = (volume: Volume) => mounts.isMounted(pool, volume) || volumes.isBusy(pool, volume);
      for (const volume of present) if (isInUse(volume)) ours.add(driver.path(volume));
    }
    const stray = (await host.mounts.list()).filter(({ target }) => target.startsWith(`${root}/`) && !ours.has(target));
    // Innermost mounts first.
    return stray.reverse().map(({ target }) => ({
      subject: target,
      problem: "Something is mounted there that lido did not mount",
      repair: () => host.mounts.unmount(target),
    }));
  }

  async #records(pool: string): Promise<Problem[]> {
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
  async #instances(): Promise<Problem[]> {
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
        problem: `The volume is known but no instance has it; "lido admin recover" brings the instance back`,
      })),
    ];
  }

  /** Finds files, mounts and loop devices in lido's directories that belong to no pool or image, and what ended containers left. */
  async #host(): Promise<Problem[]> {
    const { database, host, pools, paths } = this.#options;
    const names = new Set(pools.names());
    const found: Problem[] = [];
    const mounts = await host.mounts.list();
    for (const name of await readdir(paths.storagePools)) {
      if (names.has(name) || pools.isBusy(name)) continue;
      const root = join(paths.storagePools, name);
      if (mounts.some(({ target }) => target === root)) {
        found.push({ subject: root, problem: "It is mounted, and no pool's", repair: () => host.mounts.unmount(root) });
      }
      found.push({ subject: root, problem: "The directory is no pool's", repair: () => rmdir(root) });
    }
    const disks = await realpath(paths.disks); // the kernel reports resolved paths
    const poolOf = (path: string) => basename(path, ".img");
    const isKnown = (path: string) => names.has(poolOf(path)) || pools.isBusy(poolOf(path));
    const files = (await readdir(paths.disks)).map((file) => join(paths.disks, file));
    for (const { device, file, isDeleted } of await host.loops.list()) {
      if (dirname(file) !== disks || isKnown(file)) continue;
      found.push({
        subject: device,
        problem: `It is attached to "${file}"${isDeleted ? ", which was deleted" : ""}, and no pool's`,
        repair: () => host.loops.detach(device),
      });
    }
    for (const file of files) {
      if (!isKnown(file)) found.push({ subject: file, problem: "The file is no pool's; it may hold data" });
    }
    for (const name of await this.#options.runtime.strays()) {
      found.push({
        subject: `instance/${name}`,
        problem: "A container that is no more left a directory or a cgroup",
        repair: () => this.#options.runtime.destroy(name),
      });
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

  /** Deletes the row of a missing volume or snapshot. @throws {LidoError} When the volume is in use. */
  async #forget(pool: string, volume: Volume): Promise<void> {
    const { database, volumes } = this.#options;
    if (volume.snapshot !== undefined) {
      const row = volumes.row(pool, "custom", fromDisk(volume));
      database.run("DELETE FROM storage_volume_snapshots WHERE volume_id = ? AND name = ?", row.id!, volume.snapshot);
      return;
    }
    volumes.refuseUsed(pool, fromDisk(volume), "The storage volume is still in use");
    forgetVolume(this.#options, pool, volume);
    await Promise.resolve();
  }
}

const types: readonly Volume["type"][] = ["container", "custom", "image"];

/** A name to show to users: `custom/v`, `custom/v/snapshot`. */
function keyOf(volume: Volume): string {
  const name = `${volume.type}/${fromDisk(volume)}`;
  return volume.snapshot === undefined ? name : `${name}/${volume.snapshot}`;
}
