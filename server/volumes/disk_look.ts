import { LidoError } from "../../api/errors.ts";
import type { Driver, Volume, VolumeType } from "../../drivers/storage/driver.ts";
import { fromDisk, temporaryPrefix } from "../../drivers/storage/layout.ts";
import type { Database } from "../state/database.ts";
import type { Pools } from "../pools/pools.ts";
import { nameInUse, volumeRow } from "../store/rows.ts";

export interface DiskLookOptions {
  readonly database: Database;
  readonly pools: Pick<Pools, "ready">;
}

/** Checks for volumes and snapshots that are on disk but have no row ("unknown"). Every verb that creates, renames or deletes looks under the lock of
 * the name, before it opens an intent: an undo deletes what it finds under that name, so an older unknown volume must have been refused before.
 * Between the look and the change, the driver itself refuses (`AlreadyThere`). */
export class DiskLook {
  readonly #options: DiskLookOptions;

  constructor(options: DiskLookOptions) {
    this.#options = options;
  }

  /** @param volume To be created, or the new name of one. @throws {LidoError} conflict when the pool has the volume, snapshots of it, or its row. */
  async refuseTaken(pool: string, volume: Volume): Promise<void> {
    const name = fromDisk(volume), driver = await this.#options.pools.ready(pool);
    if (volumeRow(this.#options.database, pool, volume.type, name)) {
      if (volume.type !== "container") throw nameInUse(pool, name);
      throw conflict(
        `Volume "${name}" of storage pool "${pool}" is known, but no instance has it; see "lido admin recover"`,
      );
    }
    if (!await driver.isTaken(volume)) return;
    const place = `on storage pool "${pool}"`;
    if (await driver.exists(volume)) {
      const how = volume.type === "image" ? " --drop-images" : "";
      throw conflict(`Volume "${name}" exists ${place} but is not known; see "lido admin recover${how}"`);
    }
    const snapshots = (await driver.facets.snapshot?.list(volume) ?? []).join(", ");
    throw conflict(`Snapshots of a volume "${name}" exist ${place} without it: ${snapshots}; see "lido admin check"`);
  }

  /** As `refuseTaken`, for a snapshot of a known volume. */
  async refuseTakenSnapshot(pool: string, snapshot: Volume): Promise<void> {
    if (!await (await this.#options.pools.ready(pool)).exists(snapshot)) return;
    throw conflict(
      `Snapshot "${snapshot.snapshot}" of volume "${
        fromDisk(snapshot)
      }" exists on storage pool "${pool}" but is not known; see "lido admin recover"`,
    );
  }

  /** @param verb For the message. @throws {LidoError} conflict when the volume has unknown snapshots, which would be deleted with it. */
  async refuseUnknownSnapshots(pool: string, volume: Volume, verb = "delete"): Promise<void> {
    const unknown = await this.unknownSnapshots(pool, volume);
    if (unknown.length > 0) refuseLost(pool, volume, unknown, verb);
  }

  /** @returns Names of the snapshots of a volume that are on disk but have no row. */
  async unknownSnapshots(pool: string, volume: Volume): Promise<string[]> {
    const { snapshot } = (await this.#options.pools.ready(pool)).facets;
    if (!snapshot || volume.type === "image") return [];
    return this.unknownOf(pool, volume, await snapshot.list({ type: volume.type, name: volume.name }));
  }

  /** @returns The names in `snapshots` that have no row and are not temporary. */
  unknownOf(pool: string, volume: Volume, snapshots: readonly string[]): string[] {
    const known = new Set(this.#known(pool, volume));
    return snapshots.filter((name) => !known.has(name) && !name.startsWith(temporaryPrefix));
  }

  #known(pool: string, volume: Volume): string[] {
    const { database } = this.#options, name = fromDisk(volume);
    const rows = volume.type === "container"
      ? database.all(
        "SELECT name FROM instance_snapshots WHERE instance_id = (SELECT id FROM instances WHERE name = ?)",
        name,
      )
      : database.all(
        "SELECT name FROM storage_volume_snapshots WHERE volume_id = ?",
        volumeRow(database, pool, volume.type, name)?.id ?? null,
      );
    return rows.map((row) => String(row.name));
  }
}

/** @throws {LidoError} conflict: the verb would delete unknown snapshots. */
export function refuseLost(pool: string, volume: Volume, snapshots: readonly string[], verb: string): never {
  throw conflict(
    `Cannot ${verb} volume "${fromDisk(volume)}" of storage pool "${pool}": it has snapshots that are not known: ${
      snapshots.join(", ")
    }; "lido admin recover" makes them known`,
  );
}

/** Whether volumes of both names exist: then neither was renamed to the other. */
export async function isBoth(driver: Driver, type: VolumeType, name: string, to: string): Promise<boolean> {
  return await driver.exists({ type, name }) && await driver.exists({ type, name: to });
}

const conflict = (text: string) => new LidoError("conflict", text);
