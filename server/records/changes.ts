import type { Database } from "../state/database.ts";

/** Changes of the database, recorded by triggers, so that no operation has to care for the records. The triggers and their table are temporary: they
 * cost no write to the disk and end with the daemon. */

export type Change =
  | { readonly what: "pool"; readonly pool: string }
  | { readonly what: "volume"; readonly pool: string; readonly name: string }
  | { readonly what: "instance"; readonly name: string }
  | { readonly what: "profile"; readonly name: string };

const volumeOf = (row: string) =>
  `SELECT CASE ${row}.type WHEN 'container' THEN 'instance' ELSE 'volume' END, storage_pools.name, ${row}.name
   FROM storage_pools WHERE id = ${row}.pool_id AND ${row}.type <> 'image'`;
const volumeOfSnapshot = (row: string) =>
  `SELECT 'volume', storage_pools.name, storage_volumes.name FROM storage_volumes JOIN storage_pools ON storage_pools.id = pool_id
   WHERE storage_volumes.id = ${row}.volume_id`;
const instance = (row: string) => `VALUES ('instance', NULL, ${row}.name)`;
const instanceOfSnapshot = (row: string) =>
  `SELECT 'instance', NULL, name FROM instances WHERE id = ${row}.instance_id`;

/** Table → a query for the thing that a change of its row `old` or `new` affects. */
const sources: Readonly<Record<string, (row: string) => string>> = {
  storage_volumes: volumeOf,
  storage_volume_snapshots: volumeOfSnapshot,
  instances: instance,
  instance_snapshots: instanceOfSnapshot,
  storage_pools: (row) => `VALUES ('pool', ${row}.name, NULL)`,
  profiles: (row) => `VALUES ('profile', NULL, ${row}.name)`,
};

/** The journal has volumes' names on disk, with the project; the tables have names without it, such as `default_x` for `default_default_x`. */
function withoutProject(name: string): string {
  return `CASE WHEN substr(${name}, 1, 8) = 'default_' THEN substr(${name}, 9) ELSE ${name} END`;
}

/** A closed intent may have changed the files on disk (a restore restores an old record), even if it changed no table. */
const ofJournal = `
  SELECT CASE WHEN old.kind LIKE 'instance.%' OR old.payload ->> '$.type' = 'container' THEN 'instance' ELSE 'volume' END,
         old.payload ->> '$.pool', each.value
  FROM (SELECT ${withoutProject("old.payload ->> '$.name'")} AS value
        UNION SELECT CASE WHEN old.kind LIKE '%.rename' THEN ${withoutProject("old.payload ->> '$.to'")} END
        UNION SELECT old.payload ->> '$.volume') AS each
  WHERE each.value IS NOT NULL AND old.payload ->> '$.pool' IS NOT NULL
    AND old.kind NOT LIKE 'pool.%' AND coalesce(old.payload ->> '$.type', '') <> 'image'`;

export class Changes {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
    const statements = [
      "PRAGMA temp_store = MEMORY",
      "CREATE TEMP TABLE record_changes (what TEXT, pool TEXT, name TEXT)",
    ];
    const add = (table: string, event: string, select: string) =>
      statements.push(
        `CREATE TEMP TRIGGER record_${table}_${event}_${statements.length} AFTER ${event} ON main.${table}
         BEGIN INSERT INTO record_changes ${select}; END`,
      );
    for (const [table, select] of Object.entries(sources)) {
      for (const event of ["INSERT", "UPDATE"]) add(table, event, select("new"));
      for (const event of ["UPDATE", "DELETE"]) add(table, event, select("old"));
    }
    add("journal", "DELETE", ofJournal);
    for (const statement of statements) database.exec(statement);
  }

  /** @returns The changes since the last call, without duplicates. */
  take(): Change[] {
    const rows = this.#database.all("SELECT DISTINCT what, pool, name FROM record_changes");
    if (rows.length === 0) return [];
    this.#database.exec("DELETE FROM temp.record_changes");
    return rows.map((row) => ({
      what: String(row.what),
      ...(row.pool === null ? {} : { pool: String(row.pool) }),
      ...(row.name === null ? {} : { name: String(row.name) }),
    } as Change));
  }
}
