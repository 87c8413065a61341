import { LidoError, notFound } from "../../api/errors.ts";
import type { Config, StorageVolume, StorageVolumeSnapshot } from "../../api/types.ts";
import type { Volume, VolumeType } from "../../drivers/storage/driver.ts";
import { fromDisk } from "../../drivers/storage/layout.ts";
import type { Journal } from "../journal/journal.ts";
import type { Database, Row } from "../state/database.ts";
import type { Usage } from "./usage.ts";

/** Rows of volumes and their snapshots. */

const select =
  `SELECT storage_volumes.*, storage_pools.name AS pool FROM storage_volumes JOIN storage_pools ON storage_pools.id = pool_id`;

export function volumeRow(database: Database, pool: string, type: string, name: string): Row | undefined {
  return database.get(
    `${select} WHERE storage_pools.name = ? AND type = ? AND storage_volumes.name = ?`,
    pool,
    type,
    name,
  );
}

/** @throws {LidoError} not_found with LXD's text. */
export function needVolumeRow(database: Database, pool: string, type: string, name: string): Row {
  const row = volumeRow(database, pool, type, name);
  if (!row) throw notFound("Storage pool volume", name.replace(/^default_/, ""), `of type "${type}" in pool "${pool}"`);
  return row;
}

/** The error for a name that another volume has. */
export function nameInUse(pool: string, name: string): LidoError {
  const lxdText = "Volume by that name already exists";
  return new LidoError("conflict", `${lxdText}: ${JSON.stringify(name)} in pool "${pool}"`, { lxdText });
}

/** @returns The settings of a volume, or of a snapshot's volume; undefined when the volume has no row. */
export function storedConfig(database: Database, pool: string, volume: Volume): Config | undefined {
  const row = volumeRow(database, pool, volume.type, fromDisk(volume));
  return row && JSON.parse(String(row.config));
}

export function volumeRows(database: Database, pool: string, type?: string): Row[] {
  const of = type === undefined ? "" : " AND type = ?";
  const order = " ORDER BY type, storage_volumes.name";
  return database.all(
    `${select} WHERE storage_pools.name = ?${of}${order}`,
    pool,
    ...(type === undefined ? [] : [type]),
  );
}

/** Snapshots of a pool's volumes, including those of instances, each with the `type` and name of its volume. */
export function snapshotRows(database: Database, pool: string, type?: string): Row[] {
  const of = type === undefined ? "" : " AND storage_volumes.type = ?";
  const from = "JOIN storage_pools ON storage_pools.id = pool_id";
  const columns = "storage_volumes.type, storage_volumes.name AS volume, storage_volumes.project";
  const values = type === undefined ? [pool] : [pool, type];
  return database.all(
    `SELECT ${columns}, one.name, one.description, one.created_at, one.config FROM storage_volume_snapshots AS one
       JOIN storage_volumes ON storage_volumes.id = one.volume_id ${from} WHERE storage_pools.name = ?${of}
     UNION ALL
     SELECT ${columns}, one.name, '', one.created_at, '{}' FROM instance_snapshots AS one
       JOIN instances ON instances.id = one.instance_id
       JOIN storage_volumes ON storage_volumes.name = instances.name AND storage_volumes.type = 'container' ${from}
       WHERE storage_pools.name = ?${of}`,
    ...values,
    ...values,
  );
}

export function snapshotRowsOfInstance(database: Database, instance: string): Row[] {
  return database.all(
    `SELECT name, '' AS description, created_at, expires_at, '{}' AS config FROM instance_snapshots
     WHERE instance_id = (SELECT id FROM instances WHERE name = ?) ORDER BY id`,
    instance,
  );
}

export function insertVolume(
  database: Database,
  row: { poolId: number; type: VolumeType; name: string; description?: string; createdAt?: string; config: Config },
): number {
  return database.run(
    "INSERT INTO storage_volumes (pool_id, type, name, description, created_at, config) VALUES (?, ?, ?, ?, ?, ?)",
    row.poolId,
    row.type,
    row.name,
    row.description ?? "",
    row.createdAt ?? new Date().toISOString(),
    JSON.stringify(row.config),
  ).id;
}

/** @param row A snapshot's row; its id and volume are not used. */
export function insertSnapshot(database: Database, volumeId: number, row: Row): void {
  database.run(
    "INSERT INTO storage_volume_snapshots (volume_id, name, description, created_at, expires_at, config) VALUES (?, ?, ?, ?, ?, ?)",
    volumeId,
    row.name!,
    row.description!,
    row.created_at!,
    row.expires_at!,
    row.config!,
  );
}

/** Stores the id map of a custom volume's files after its content was replaced; within a transaction.
 * @param map `volatile.idmap.last` of the new content; undefined when no container has mounted it. */
export function setContentMap(database: Database, volumeId: number, map: string | undefined): void {
  const config: Config = JSON.parse(
    String(database.get("SELECT config FROM storage_volumes WHERE id = ?", volumeId)?.config),
  );
  if (config["volatile.idmap.last"] === map) return;
  // A planned map was for the old files.
  delete config["volatile.idmap.next"];
  if (map === undefined) delete config["volatile.idmap.last"];
  else config["volatile.idmap.last"] = map;
  database.run("UPDATE storage_volumes SET config = ? WHERE id = ?", JSON.stringify(config), volumeId);
}

interface Stores {
  readonly database: Database;
  readonly journal: Pick<Journal, "forget">;
}

/** Deletes the rows of a deleted pool: its own, those of its remaining volumes (unpacked images), and the inactive intents of its volumes. */
export function deletePoolRows({ database, journal }: Stores, name: string): void {
  database.transaction(() => {
    journal.forget("pool.delete", { name });
    database.run("DELETE FROM storage_volumes WHERE pool_id = (SELECT id FROM storage_pools WHERE name = ?)", name);
    database.run("DELETE FROM storage_pools WHERE name = ?", name);
  });
}

/** Deletes the rows of a deleted volume: its own, and its inactive intents. */
export function forgetVolume({ database, journal }: Stores, pool: string, volume: Volume): void {
  database.transaction(() => {
    deleteVolumeRow(database, pool, volume.type, fromDisk(volume));
    journal.forget("volume.delete", { pool, type: volume.type, name: volume.name });
  });
}

export function deleteVolumeRow(database: Database, pool: string, type: string, name: string): void {
  database.run(
    "DELETE FROM storage_volumes WHERE type = ? AND name = ? AND pool_id = (SELECT id FROM storage_pools WHERE name = ?)",
    type,
    name,
    pool,
  );
}

/** A volume by its name on disk: that of a custom volume begins with its project. */
export function onDisk(type: VolumeType, name: string): Volume {
  return { type, name: type === "custom" ? `default_${name}` : name };
}

export function viewVolume(row: Row, usage: Usage): StorageVolume {
  const type = String(row.type) as StorageVolume["type"], name = String(row.name), pool = String(row.pool);
  const owner = type === "image" ? [`/1.0/images/${name}`] : [`/1.0/instances/${name}`];
  return {
    config: JSON.parse(String(row.config)),
    description: String(row.description),
    name,
    type,
    used_by: type === "custom" ? usage.ofVolume(pool, name) : owner,
    location: "none",
    content_type: "filesystem",
    project: String(row.project),
    created_at: String(row.created_at),
  };
}

/** A snapshot as the list of volumes shows it: "volume/snapshot". */
export function viewSnapshotAsVolume(row: Row): StorageVolume {
  const type = String(row.type) as StorageVolume["type"], volume = String(row.volume), name = String(row.name);
  return {
    config: JSON.parse(String(row.config)),
    description: String(row.description),
    name: `${volume}/${name}`,
    type,
    used_by: type === "custom" ? [] : [`/1.0/instances/${volume}/snapshots/${name}`],
    location: "none",
    content_type: "filesystem",
    project: String(row.project),
    created_at: String(row.created_at),
  };
}

export function viewSnapshot(row: Row): StorageVolumeSnapshot {
  return {
    name: String(row.name),
    config: JSON.parse(String(row.config)),
    content_type: "filesystem",
    description: String(row.description),
    created_at: String(row.created_at),
    expires_at: row.expires_at === null ? null : String(row.expires_at),
  };
}
