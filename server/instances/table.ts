import { LidoError } from "../../api/errors.ts";
import type { Config, Devices, InstanceExit } from "../../api/types.ts";
import type { Database, Row } from "../state/database.ts";

/** An instance as the database has it. */
export interface InstanceRecord {
  readonly id: number;
  readonly name: string;
  readonly architecture: string;
  readonly description: string;
  readonly ephemeral: boolean;
  readonly config: Config;
  readonly devices: Devices;
  readonly profiles: readonly string[];
  readonly createdAt: string;
  readonly lastUsedAt?: string;
}

export type InstanceFields = Omit<InstanceRecord, "id">;

/** A snapshot of an instance: its settings at that time; the driver keeps the content. */
export interface SnapshotRecord {
  readonly id: number;
  readonly name: string;
  readonly createdAt: string;
  readonly expiresAt?: string;
  readonly config: Config;
  readonly devices: Devices;
  readonly profiles: readonly string[];
}

/** Configuration and devices with the profiles' merged in, the later over the earlier, the instance's own over all. */
export interface Expanded {
  readonly config: Config;
  readonly devices: Devices;
}

interface ProfileParts {
  readonly config: Config;
  readonly devices: Devices;
}

/** The rows of instances and their snapshots. Knows SQL and JSON, no policy. */
export class InstanceTable {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  list(): InstanceRecord[] {
    return this.#database.all("SELECT * FROM instances ORDER BY name").map(toInstance);
  }

  find(name: string): InstanceRecord | undefined {
    const row = this.#database.get("SELECT * FROM instances WHERE name = ?", name);
    return row && toInstance(row);
  }

  /** @throws {LidoError} not_found. */
  get(name: string): InstanceRecord {
    const record = this.find(name);
    if (!record) {
      throw new LidoError("not_found", `Instance not found: ${JSON.stringify(name)} in project "default"`, {
        lxdText: "Instance not found", // Ansible's connection plugin compares the whole line
      });
    }
    return record;
  }

  /** @throws {LidoError} conflict when the name is taken, with LXD's text. */
  refuseTaken(name: string): void {
    if (!this.find(name)) return;
    const lxdText = 'Add instance info to the database: This "instances" entry already exists';
    throw new LidoError("conflict", `${lxdText}: ${JSON.stringify(name)}`, { lxdText });
  }

  /** @throws {LidoError} conflict when the name is taken. */
  insert(fields: InstanceFields): InstanceRecord {
    this.refuseTaken(fields.name);
    this.#database.run(
      `INSERT INTO instances (name, architecture, description, ephemeral, config, devices, profiles, created_at, last_used_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      fields.name,
      fields.architecture,
      fields.description,
      fields.ephemeral ? 1 : 0,
      JSON.stringify(fields.config),
      JSON.stringify(fields.devices),
      JSON.stringify(fields.profiles),
      fields.createdAt,
      fields.lastUsedAt ?? null,
    );
    return this.get(fields.name);
  }

  update(name: string, fields: Partial<InstanceFields>): void {
    const merged = { ...this.get(name), ...fields };
    this.#database.run(
      `UPDATE instances SET name = ?, architecture = ?, description = ?, ephemeral = ?, config = ?, devices = ?, profiles = ?,
       last_used_at = ? WHERE id = ?`,
      merged.name,
      merged.architecture,
      merged.description,
      merged.ephemeral ? 1 : 0,
      JSON.stringify(merged.config),
      JSON.stringify(merged.devices),
      JSON.stringify(merged.profiles),
      merged.lastUsedAt ?? null,
      merged.id,
    );
  }

  /** Changes single configuration keys; undefined removes a key. Does nothing for a deleted instance. */
  setConfig(name: string, changes: Readonly<Record<string, string | undefined>>): void {
    this.#database.transaction(() => {
      const record = this.find(name);
      const isChange = Object.entries(changes).some(([key, value]) => record?.config[key] !== value);
      if (record && isChange) this.update(name, { config: merge(record.config, changes) });
    });
  }

  delete(name: string): void {
    this.#database.run("DELETE FROM instances WHERE name = ?", name);
  }

  snapshots(instance: InstanceRecord): SnapshotRecord[] {
    return this.#database.all(
      "SELECT * FROM instance_snapshots WHERE instance_id = ? ORDER BY created_at, id",
      instance.id,
    ).map(toSnapshot);
  }

  findSnapshot(instance: InstanceRecord, name: string): SnapshotRecord | undefined {
    const row = this.#database.get(
      "SELECT * FROM instance_snapshots WHERE instance_id = ? AND name = ?",
      instance.id,
      name,
    );
    return row && toSnapshot(row);
  }

  insertSnapshot(instance: InstanceRecord, name: string, expiresAt: string | undefined): void {
    this.#database.run(
      `INSERT INTO instance_snapshots (instance_id, name, created_at, expires_at, config, devices, profiles)
       VALUES (?, ?, ?, ?, ?, ?, ?)`,
      instance.id,
      name,
      new Date().toISOString(),
      expiresAt ?? null,
      JSON.stringify(instance.config),
      JSON.stringify(instance.devices),
      JSON.stringify(instance.profiles),
    );
  }

  /** Inserts a snapshot that was found on disk, or copied with its instance. */
  insertFound(instance: InstanceRecord, snapshot: Omit<SnapshotRecord, "id">): void {
    this.#database.run(
      `INSERT INTO instance_snapshots (instance_id, name, created_at, expires_at, config, devices, profiles)
       VALUES (?, ?, ?, ?, ?, ?, ?)`,
      instance.id,
      snapshot.name,
      snapshot.createdAt,
      snapshot.expiresAt ?? null,
      JSON.stringify(snapshot.config),
      JSON.stringify(snapshot.devices),
      JSON.stringify(snapshot.profiles),
    );
  }

  renameSnapshot(id: number, name: string): void {
    this.#database.run("UPDATE instance_snapshots SET name = ? WHERE id = ?", name, id);
  }

  expireSnapshot(id: number, expiresAt: string | undefined): void {
    this.#database.run("UPDATE instance_snapshots SET expires_at = ? WHERE id = ?", expiresAt ?? null, id);
  }

  deleteSnapshot(instance: InstanceRecord, name: string): void {
    this.#database.run("DELETE FROM instance_snapshots WHERE instance_id = ? AND name = ?", instance.id, name);
  }

  /** The devices that a running container has mounted. @returns undefined if it does not run. */
  mounted(name: string): Devices | undefined {
    const row = this.#database.get(
      "SELECT instance_mounts.devices FROM instance_mounts JOIN instances ON instances.id = instance_id WHERE name = ?",
      name,
    );
    return row && parse(row.devices);
  }

  /** @param devices undefined when nothing is mounted any more. */
  setMounted(name: string, devices: Devices | undefined): void {
    const id = this.find(name)?.id;
    if (id === undefined) return;
    if (!devices) this.#database.run("DELETE FROM instance_mounts WHERE instance_id = ?", id);
    else {
      this.#database.run(
        "INSERT OR REPLACE INTO instance_mounts (instance_id, devices) VALUES (?, ?)",
        id,
        JSON.stringify(devices),
      );
    }
  }

  /** @returns How the container ended last; undefined if it never has. */
  lastExit(name: string): InstanceExit | undefined {
    const row = this.#database.get(
      "SELECT exit FROM instance_exits JOIN instances ON instances.id = instance_id WHERE name = ?",
      name,
    );
    return row && parse(row.exit);
  }

  setLastExit(name: string, exit: InstanceExit): void {
    const id = this.find(name)?.id;
    if (id === undefined) return;
    this.#database.run(
      "INSERT OR REPLACE INTO instance_exits (instance_id, exit) VALUES (?, ?)",
      id,
      JSON.stringify(exit),
    );
  }

  /** @throws {LidoError} bad_request when one of `profiles` does not exist. */
  checkProfiles(profiles: readonly string[], textOfMissing: (name: string) => string): void {
    const known = this.#profiles();
    const seen = new Set<string>();
    for (const name of profiles) {
      if (!known.has(name)) throw new LidoError("bad_request", textOfMissing(name));
      if (seen.has(name)) throw new LidoError("bad_request", "Duplicate profile found in request");
      seen.add(name);
    }
  }

  /** @returns The names in `profiles` that exist. */
  knownProfiles(profiles: readonly string[]): string[] {
    const known = this.#profiles();
    return profiles.filter((name) => known.has(name));
  }

  expand(parts: Pick<InstanceRecord, "config" | "devices" | "profiles">): Expanded {
    return this.expandAll([parts])[0]!;
  }

  /** As `expand`, reading the profiles once for all. */
  expandAll(all: readonly Pick<InstanceRecord, "config" | "devices" | "profiles">[]): Expanded[] {
    const profiles = this.#profiles();
    return all.map((parts) => {
      const layers = [...parts.profiles.map((name) => profiles.get(name)), parts];
      return {
        config: Object.assign({}, ...layers.map((layer) => layer?.config)),
        devices: Object.assign({}, ...layers.map((layer) => layer?.devices)),
      };
    });
  }

  #profiles(): Map<string, ProfileParts> {
    const rows = this.#database.all("SELECT name, config, devices FROM profiles");
    return new Map(rows.map((row) => [
      String(row.name),
      { config: parse<Config>(row.config), devices: parse<Devices>(row.devices) },
    ]));
  }
}

/** @returns `config` with the changes; undefined and "" remove a key. */
export function merge(config: Config, changes: Readonly<Record<string, string | undefined>>): Config {
  return Object.fromEntries(
    Object.entries({ ...config, ...changes }).filter((entry): entry is [string, string] =>
      entry[1] !== undefined && entry[1] !== ""
    ),
  );
}

const parse = <T>(value: Row[string] | undefined): T => JSON.parse(String(value));

function toInstance(row: Row): InstanceRecord {
  return {
    id: Number(row.id),
    name: String(row.name),
    architecture: String(row.architecture),
    description: String(row.description),
    ephemeral: row.ephemeral === 1,
    config: parse(row.config),
    devices: parse(row.devices),
    profiles: parse(row.profiles),
    createdAt: String(row.created_at),
    ...(row.last_used_at === null ? {} : { lastUsedAt: String(row.last_used_at) }),
  };
}

function toSnapshot(row: Row): SnapshotRecord {
  return {
    id: Number(row.id),
    name: String(row.name),
    createdAt: String(row.created_at),
    ...(row.expires_at === null ? {} : { expiresAt: String(row.expires_at) }),
    config: parse(row.config),
    devices: parse(row.devices),
    profiles: parse(row.profiles),
  };
}
