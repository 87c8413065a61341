/** Who owns the files of a custom volume that containers share.
 *
 * A volume's files have the owners of the id map it was last attached with (`volatile.idmap.last`, none at first). A container with the same map just
 * uses it. For a container with another map the owners are changed, unless another instance that has the volume needs a different map: then the
 * container is refused. A map that contains the other one counts as the same: a container started when root's range was smaller, or by an earlier
 * version that used a part of it, shares volumes with containers started today. The volume then has the wider map, so no owner that either container
 * knows changes.
 * `security.unmapped` leaves the owners alone; `security.shifted` keeps them as root's on disk and gives each container its own view by
 * an idmapped mount. */

import { LidoError, notFound } from "../../../api/errors.ts";
import type { Config } from "../../../api/types.ts";
import type { IdMap } from "../../../drivers/host/id_map.ts";
import type { Volume } from "../../../drivers/storage/driver.ts";
import { isTrue } from "../../config/instance.ts";
import { disksOf } from "../../config/devices.ts";
import { fileCount } from "./file_count.ts";
import { describeIdmap, extendsIdmap, formatIdmap, parseIdmap, sameIdmap } from "../../ids/idmaps.ts";
import type { InstanceServices } from "../services.ts";
import { type ShiftProgress, untold } from "./shift_progress.ts";
import { shiftInSteps } from "./shift_steps.ts";
import type { Expanded, InstanceTable } from "../table.ts";
import type { OpenIntent } from "../../journal/journal.ts";

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
  readonly #records: InstanceTable;
  readonly #openShift: OpenIntent<ShiftIntent>;

  constructor(services: InstanceServices, records: InstanceTable) {
    this.#services = services;
    this.#records = records;
    this.#openShift = services.journal.kind<ShiftIntent>("volume.shift", async (payload, cause) => {
      // An interrupted change is completed; a failed one is rolled back. Either way the whole tree has one map then.
      const [from, to] = cause === "crashed" ? [payload.from, payload.to] : [payload.to, payload.from];
      const volume = this.#find(payload.pool, payload.volume);
      if (!volume) return;
      await this.#shift(payload.pool, payload.volume, parseIdmap(from), parseIdmap(to));
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
    progress: ShiftProgress = untold,
  ): Promise<{ shifted: boolean }> {
    const volume = this.get(pool, name);
    const driver = await this.#services.pools.ready(pool);
    if (isTrue(volume.config["security.unmapped"])) return { shifted: false };
    const isShifted = isTrue(volume.config["security.shifted"]);
    if (isShifted && map && !driver.idmappedMounts) {
      throw new LidoError("bad_request", "Required idmapping abilities not available");
    }
    const last = parseIdmap(volume.config["volatile.idmap.last"]);
    try {
      // Other users of a shifted volume do not matter: it cannot become shifted while one of them runs.
      const next = isShifted ? undefined : this.#commonMap(instance, pool, name, last, map);
      if (!sameIdmap(last, next)) await this.#remap({ id: volume.id, pool, name }, last, next, progress);
      else if (volume.config["volatile.idmap.last"] === undefined) this.#setMap(volume.id, formatIdmap(next));
    } catch (error) {
      throw prefixed(
        `Failed mounting volume: Failed shifting storage volume "${name}" of type "custom" on storage pool "${pool}": `,
        error,
      );
    }
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

  /** @param own The map of the instance that is about to use the volume. @returns The map that the volume gets: `own`, or a wider one of another user
   * or of the volume. @throws {LidoError} bad_request if another user's map neither contains it nor is contained in it. */
  #commonMap(
    instance: string,
    pool: string,
    name: string,
    last: IdMap | undefined,
    own: IdMap | undefined,
  ): IdMap | undefined {
    if (sameIdmap(last, own)) return own;
    const users = this.users(pool, name);
    let next = own;
    for (const user of users) {
      if (user.name === instance) continue;
      const isRunning = this.#services.runtime.get(user.name) !== undefined;
      const map = parseIdmap(user.expanded.config[isRunning ? "volatile.idmap.current" : "volatile.idmap.next"]);
      if (extendsIdmap(map, next)) next = map;
      else if (!extendsIdmap(next, map)) {
        // LXD's text names the container whose map differs from the volume's.
        const differs = extendsIdmap(last, own) || extendsIdmap(own, last) ? user.name : instance;
        throw new LidoError(
          "bad_request",
          `Idmaps of container "${differs}" and storage volume "${name}" are not identical: "${instance}" has ${
            describeIdmap(own)
          }; "${user.name}", which uses the volume too, has ${describeIdmap(map)}`,
        );
      }
    }
    // A volume that has a wider map keeps it.
    return extendsIdmap(last, next) ? last : next;
  }

  async #remap(
    volume: { id: number; pool: string; name: string },
    from: IdMap | undefined,
    to: IdMap | undefined,
    progress: ShiftProgress,
  ): Promise<void> {
    const { id, pool, name } = volume;
    this.#services.pools.driver(pool); // throws for an unavailable pool before anything is changed
    this.#setConfig(id, { "volatile.idmap.next": formatIdmap(to) });
    let told: ReturnType<ShiftProgress> | undefined;
    await shiftInSteps(from, to, async (last, next, becomes, pass) => {
      await using intent = this.#openShift({ pool, volume: name, from: formatIdmap(last), to: formatIdmap(next) });
      const changed = await this.#shift(pool, name, last, next, async (mounted) => {
        told ??= progress("storage volume", await fileCount(this.#services.pools.driver(pool), mounted));
        return told(pass);
      });
      intent.commit(() => this.#setMap(id, formatIdmap(becomes(changed))));
      return changed;
    });
  }

  async #shift(
    pool: string,
    name: string,
    from: IdMap | undefined,
    to: IdMap | undefined,
    watch?: (mounted: Volume) => Promise<(entries: number) => void>,
  ): Promise<number> {
    const volume: Volume = { type: "custom", name: `default_${name}` };
    await using use = await this.#services.mounts.use(pool, volume);
    const progress = await watch?.(volume);
    return await this.#services.ids.shift(use.path, from, to, progress ? { progress } : {});
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

/** The same error with a prefix that says where it happened. */
export function prefixed(prefix: string, error: unknown): Error {
  if (error instanceof LidoError) return new LidoError(error.code, prefix + error.message, { cause: error });
  return new LidoError("internal", prefix + (error instanceof Error ? error.message : String(error)), { cause: error });
}
