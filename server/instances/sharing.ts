/** Who owns the files of a custom volume that containers share.
 *
 * A volume's files have the owners of the id map it was last attached with (`volatile.idmap.last`, none at first). A container with the same map just
 * uses it. With another map, the volume follows if nobody else uses it; else the container is refused. `security.unmapped` leaves the
 * owners alone; `security.shifted` keeps them as root's on disk and gives each container its own view by an idmapped mount. */

import { LidoError, notFound } from "../../api/errors.ts";
import type { Config } from "../../api/types.ts";
import type { IdMap } from "../../drivers/runtime/runtime.ts";
import { isTrue } from "./config_keys.ts";
import { disksOf } from "./devices.ts";
import { formatIdmap, parseIdmap, sameIdmap } from "./idmaps.ts";
import type { InstanceServices } from "./ports.ts";
import { shiftSteps } from "./shift_steps.ts";
import type { Expanded, InstanceRecords } from "./records.ts";

interface ShiftIntent {
  pool: string;
  volume: string;
  from: string;
  to: string;
}

/** A row of a custom volume. */
interface CustomVolume {
  readonly id: number;
  readonly config: Config;
}

export class Sharing {
  readonly #services: InstanceServices;
  readonly #records: InstanceRecords;
  readonly #openShift: (payload: ShiftIntent) => ReturnType<ReturnType<InstanceServices["journal"]["kind"]>>;

  constructor(services: InstanceServices, records: InstanceRecords) {
    this.#services = services;
    this.#records = records;
    this.#openShift = services.journal.kind<ShiftIntent>("volume.shift", async (payload, cause) => {
      // After a kill the change is completed; a failed one is taken back. Either way the tree ends in one map.
      const [from, to] = cause === "crashed" ? [payload.from, payload.to] : [payload.to, payload.from];
      const volume = this.#find(payload.pool, payload.volume);
      if (!volume) return;
      await this.#shift(payload.pool, payload.volume, from, to, () => {});
      this.#setMap(volume.id, to);
    });
  }

  /** The row of a custom volume. @throws {LidoError} not_found with LXD's text. */
  get(pool: string, name: string): CustomVolume {
    if (!this.#services.database.get("SELECT id FROM storage_pools WHERE name = ?", pool)) {
      throw new LidoError("not_found", `Failed to get storage pool "${pool}": Storage pool not found`);
    }
    const volume = this.#find(pool, name);
    if (!volume) throw notFound("Failed loading custom volume: Storage volume", name, `in pool "${pool}"`);
    return volume;
  }

  /** Makes a volume's owners fit a container that is about to mount it; the caller holds the volume's lock.
   * @param map The container's map; absent when it is privileged.
   * @returns Whether it must be mounted with the container's map. @throws {LidoError} bad_request with LXD's texts. */
  async prepare(
    instance: string,
    pool: string,
    name: string,
    map: IdMap | undefined,
    progress: (entries: number) => void = () => {},
  ): Promise<{ shifted: boolean }> {
    const volume = this.get(pool, name);
    if (isTrue(volume.config["security.unmapped"])) return { shifted: false };
    const isShifted = isTrue(volume.config["security.shifted"]);
    if (isShifted && map && !this.#services.pools.driver(pool).idmappedMounts) {
      throw new LidoError("bad_request", "Required idmapping abilities not available");
    }
    const next = isShifted ? undefined : map;
    const last = parseIdmap(volume.config["volatile.idmap.last"]);
    if (!sameIdmap(last, next)) {
      try {
        // Whoever uses a shifted volume: none of them runs, or it could not have become one.
        if (!isShifted) this.#checkUsers(instance, pool, name, next);
        await this.#remap({ id: volume.id, pool, name }, last, next, progress);
      } catch (error) {
        throw prefixed(
          `Failed mounting volume: Failed shifting storage volume "${name}" of type "custom" on storage pool "${pool}": `,
          error,
        );
      }
    } else if (volume.config["volatile.idmap.last"] === undefined) this.#setMap(volume.id, formatIdmap(next));
    return { shifted: isShifted && map !== undefined };
  }

  /** The instances that have the volume among their devices, running or not. */
  users(pool: string, name: string): { name: string; expanded: Expanded }[] {
    const records = this.#records.list();
    const expanded = this.#records.expandAll(records);
    return records.map((record, index) => ({ name: record.name, expanded: expanded[index]! })).filter((user) =>
      disksOf(user.expanded.devices).some((disk) => disk.volume?.pool === pool && disk.volume.name === name)
    );
  }

  #checkUsers(instance: string, pool: string, name: string, next: IdMap | undefined): void {
    const users = this.users(pool, name);
    if (users.length === 1 && users[0]!.name !== instance) {
      throw new LidoError("bad_request", "Idmaps of container and storage volume are not identical");
    }
    if (users.length < 2) return;
    for (const user of users) {
      if (user.name === instance) continue;
      const isRunning = this.#services.runtime.get(user.name) !== undefined;
      const map = parseIdmap(user.expanded.config[isRunning ? "volatile.idmap.current" : "volatile.idmap.next"]);
      if (!sameIdmap(map, next)) {
        throw new LidoError(
          "bad_request",
          `Idmaps of container "${user.name}" and storage volume "${name}" are not identical`,
        );
      }
    }
  }

  async #remap(
    volume: { id: number; pool: string; name: string },
    from: IdMap | undefined,
    to: IdMap | undefined,
    progress: (entries: number) => void,
  ): Promise<void> {
    const { id, pool, name } = volume;
    this.#setConfig(id, { "volatile.idmap.next": formatIdmap(to) });
    let last = formatIdmap(from);
    for (const step of shiftSteps(from, to).map(formatIdmap)) {
      await using intent = this.#openShift({ pool, volume: name, from: last, to: step });
      await this.#shift(pool, name, last, step, progress);
      intent.commit(() => this.#setMap(id, step));
      last = step;
    }
  }

  async #shift(
    pool: string,
    name: string,
    from: string,
    to: string,
    progress: (entries: number) => void,
  ): Promise<void> {
    await using use = await this.#services.mounts.use(pool, { type: "custom", name: `default_${name}` });
    await this.#services.ids.shift(use.path, parseIdmap(from), parseIdmap(to), { progress });
  }

  #find(pool: string, name: string): CustomVolume | undefined {
    const row = this.#services.database.get(
      `SELECT storage_volumes.id, storage_volumes.config FROM storage_volumes JOIN storage_pools ON storage_pools.id = pool_id
       WHERE storage_pools.name = ? AND type = 'custom' AND storage_volumes.name = ? AND project = 'default'`,
      pool,
      name,
    );
    return row && { id: Number(row.id), config: JSON.parse(String(row.config)) };
  }

  #setMap(id: number, map: string): void {
    this.#setConfig(id, { "volatile.idmap.last": map, "volatile.idmap.next": map });
  }

  #setConfig(id: number, changes: Config): void {
    this.#services.database.transaction(() => {
      const row = this.#services.database.get("SELECT config FROM storage_volumes WHERE id = ?", id);
      if (!row) return;
      const config = { ...JSON.parse(String(row.config)), ...changes };
      this.#services.database.run("UPDATE storage_volumes SET config = ? WHERE id = ?", JSON.stringify(config), id);
    });
  }
}

/** The same error with words in front that say where it happened. */
export function prefixed(prefix: string, error: unknown): Error {
  if (error instanceof LidoError) return new LidoError(error.code, prefix + error.message, { cause: error });
  return new LidoError("internal", prefix + (error instanceof Error ? error.message : String(error)), { cause: error });
}
