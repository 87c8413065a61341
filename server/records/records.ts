import { AsyncLocalStorage } from "node:async_hooks";
import { randomUUID } from "node:crypto";
import type { Config, Devices } from "../../api/types.ts";
import { readBeneath } from "../../drivers/host/files/beneath.ts";
import { removeFile, replaceFile } from "../../drivers/host/files/replace_file.ts";
import { messageInWords } from "../../drivers/host/files/reasons.ts";
import type { Volume } from "../../drivers/storage/driver.ts";
import { directoryOf, fromDisk } from "../../drivers/storage/layout.ts";
import { InstanceTable } from "../instances/table.ts";
import type { Journal } from "../journal/journal.ts";
import type { Database, Row } from "../state/database.ts";
import type { MountedVolumes } from "../pools/mounted.ts";
import type { Pools } from "../pools/pools.ts";
import { onDisk, viewSnapshot, volumeRow } from "../store/rows.ts";
import { lockName, type Volumes } from "../volumes/volumes.ts";
import { isSameBackup, type PoolInfo, writeBackup } from "./backup_yaml.ts";
import { Changes } from "./changes.ts";
import { RecordStore } from "./store.ts";
import { writePoolRecord, writeVolumeRecord } from "./volume_record.ts";

export interface RecordsOptions {
  readonly database: Database;
  readonly journal: Journal;
  readonly pools: Pools;
  readonly volumes: Volumes;
  readonly mounts: MountedVolumes;
  /** Directory on the host for a copy of each pool's record, by which recovery finds pools that are elsewhere. */
  readonly notes: string;
  readonly log: { warn(context: object, message: string): void };
}

/** Kinds of intents that delete or change existing things. Creating needs no mark: an unfinished thing has no record yet. */
const marked = /\.(delete|rename|restore|shift)$|^instance\.snapshot$/;

interface Failure {
  readonly work: () => Promise<boolean>;
  readonly reason: string;
  /** When it failed first, by `performance.now()`. */
  readonly atMs: number;
}

/** A change scope: the record writes that one request or operation causes. It does not wait for those of other scopes, which may wait for minutes for
 * a busy volume. */
export interface RecordsScope {
  /** Runs work whose changes belong to this scope. */
  run<T>(work: () => Promise<T>): Promise<T>;
  /** Resolves when the record writes of this scope, and of no scope, have ended, also by failure.
   * @returns A sentence for each record that could not be written since its start. */
  settled(): Promise<string[]>;
}

/** The database's content in small files beside the data: `lido admin recover` reads them if the database is lost. They follow the database
 * (see `Changes`); each request or operation waits for its scope's `settled` before it replies. A record is compared before it is
 * written, so an unchanged one costs only a read. */
export class Records {
  readonly #options: RecordsOptions;
  readonly #instances: InstanceTable;
  readonly #changes: Changes;
  /** Records that wait to be written. */
  readonly #due = new Set<string>();
  readonly #works = new Map<string, Promise<void>>();
  readonly #scope = new AsyncLocalStorage<Set<string>>();
  /** Keys of `#works` whose changes belong to no scope. */
  readonly #nobodys = new Set<string>();
  /** Records that could not be written, such as on a full disk. Retried with the next change, which may have freed space. */
  readonly #failed = new Map<string, Failure>();
  #verifyOpened: (pool: string) => void = () => {};
  #verifying: Promise<void> = Promise.resolve();
  /** Ids of the marked intents, with their pools. */
  readonly #marks = new Map<number, string>();
  /** Makes marks unique: in a new database the ids of intents start from 1 again. */
  readonly #run = randomUUID();

  constructor(options: RecordsOptions) {
    this.#options = options;
    this.#instances = new InstanceTable(options.database);
    this.#changes = new Changes(options.database);
    options.database.afterWrite(() => this.#follow());
    options.journal.watch({
      opened: (id, kind, payload) => this.#mark(id, kind, payload as Record<string, unknown>),
      closed: (id) => this.#unmark(id),
    });
  }

  /** Verifies the pools' records in the background, where needed: a killed daemon may have committed a change without writing its record, and a pool
   * may have no records yet. Called after the journal's recovery. @param wasClean Whether the last daemon ended cleanly. */
  start(wasClean: boolean): void {
    this.#verifyOpened = (pool) => {
      if (wasClean && readable(() => this.#store(pool)?.readPool()) !== undefined) return;
      const before = this.#verifying;
      const look = async () => {
        await before;
        const wrong = await this.verify(pool);
        if (wrong.length > 0) {
          this.#options.log.warn({ pool, records: wrong.length }, "wrote records that were missing or old");
        }
      };
      this.#verifying = look().catch((error) =>
        this.#options.log.warn({ pool, error: messageInWords(error) }, "cannot look over the records of a storage pool")
      );
    };
    for (const pool of this.#options.pools.names()) this.opened(pool);
  }

  /** Called for each pool that was opened. */
  opened(pool: string): void {
    if (this.#store(pool)) this.#verifyOpened(pool);
  }

  /** Resolves when all verifications and writes have ended. */
  async idle(): Promise<void> {
    await this.#verifying;
    await Promise.all(this.#works.values());
  }

  /** Makes the change scope of a request or an operation. */
  scope(): RecordsScope {
    const mine = new Set<string>(), sinceMs = performance.now();
    return {
      run: (work) => this.#scope.run(mine, work),
      settled: async () => {
        const due = [...this.#works].filter(([key]) => mine.has(key) || this.#nobodys.has(key));
        await Promise.all(due.map(([, work]) => work));
        return [...this.#failed].filter(([, { atMs }]) => atMs >= sinceMs).map(([key, { reason }]) =>
          `recovery record of ${key}: not written (${reason}), so "lido admin recover" would find what was before; the next change tries again`
        );
      },
    };
  }

  /** Writes every missing or outdated record of a pool: after a crash, and when a pool becomes available or had no records.
   * @param onlyTell Writes nothing. @returns The subjects of the wrong records. */
  async verify(pool: string, onlyTell = false): Promise<string[]> {
    const { database, pools, journal } = this.#options;
    const store = this.#store(pool);
    if (!store) return [];
    await pools.ready(pool);
    const wrong: string[] = [];
    const look = async (subject: string, work: () => Promise<boolean>) => {
      try {
        if (await work()) wrong.push(subject);
      } catch (error) {
        wrong.push(`${subject}: ${messageInWords(error)}`);
      }
    };
    await look("pool.yaml", () => this.#writePool(pool, onlyTell));
    const rows = database.all("SELECT type, name FROM storage_volumes WHERE pool_id = ?", pools.id(pool));
    for (const { type, name } of rows) {
      if (type === "custom") await look(`custom/${name}`, () => this.#writeVolume(pool, String(name), onlyTell));
      if (type === "container") await look(`container/${name}`, () => this.#writeInstance(String(name), onlyTell));
    }
    const known = new Set(
      rows.filter(({ type }) => type === "custom").map(({ name }) => onDisk("custom", String(name)).name),
    );
    const ofInstances = new Set(rows.filter(({ type }) => type === "container").map(({ name }) => String(name)));
    const present = new Set((await pools.driver(pool).list()).map(({ name }) => name));
    for (const name of await store.volumes()) {
      // The record of an unknown volume that is on disk is kept: recovery needs it.
      if (known.has(name) || present.has(name)) continue;
      wrong.push(`the record of custom volume "${fromDisk({ type: "custom", name })}", which is not there`);
      if (!onlyTell) await store.removeVolume(name);
    }
    // The mark of an unknown volume that is on disk is kept: recovery must know that it was being deleted or changed.
    const unknown = (name: unknown) =>
      present.has(String(name)) && !known.has(String(name)) && !ofInstances.has(String(name));
    for (const [id, intent] of await store.openIntents()) {
      if (journal.unsettled().length > 0 || id.startsWith(this.#run) || unknown(intent?.payload.name)) continue;
      if (!onlyTell) store.closeIntent(id);
    }
    return wrong;
  }

  #follow(): void {
    const changes = this.#changes.take();
    for (const change of changes) {
      if (change.what === "pool") {
        this.#write(`pool ${change.pool}`, () => this.#writePool(change.pool));
        this.#writeInstances(this.#instancesOn(change.pool));
      } else if (change.what === "volume") {
        this.#write(`volume ${change.pool}/${change.name}`, () => this.#writeVolume(change.pool, change.name));
      } else if (change.what === "profile") {
        const users = this.#instances.list().filter(({ profiles }) => profiles.includes(change.name));
        this.#writeInstances(users.map(({ name }) => name));
      } else this.#writeInstances([change.name]);
    }
    if (changes.length > 0 && this.#failed.size > 0) this.#retry();
  }

  /** Retries the failed records one after the other, until one fails again: a full disk is not tried for each. */
  #retry(): void {
    const key = "what failed";
    this.#changed(key);
    if (this.#works.has(key)) return;
    // Waits for this scope's writes, as the change may have freed space, and not for those of others, which may take minutes.
    const mine = this.#scope.getStore() ?? this.#nobodys;
    const before = [...this.#works].filter(([record]) => mine.has(record)).map(([, work]) => work);
    const work = Promise.all(before).then(async () => {
      for (const [record, failure] of this.#failed) {
        this.#failed.delete(record);
        try {
          await failure.work();
        } catch {
          return void this.#failed.set(record, failure);
        }
      }
    }).finally(() => this.#forget(key));
    this.#works.set(key, work);
  }

  #writeInstances(names: readonly string[]): void {
    for (const name of names) this.#write(`instance ${name}`, () => this.#writeInstance(name));
  }

  #changed(key: string): void {
    (this.#scope.getStore() ?? this.#nobodys).add(key);
  }

  #forget(key: string): void {
    this.#works.delete(key);
    this.#nobodys.delete(key);
  }

  /** Queues a record's write, one at a time for each record; a record that is changed again before its turn is written once. */
  #write(key: string, work: () => Promise<boolean>): void {
    this.#changed(key);
    if (this.#due.has(key)) return;
    this.#due.add(key);
    const before = this.#works.get(key) ?? Promise.resolve();
    const mine = before.then(async () => {
      this.#due.delete(key);
      this.#failed.delete(key);
      try {
        await work();
      } catch (error) {
        const reason = messageInWords(error);
        this.#failed.set(key, { work, reason, atMs: performance.now() });
        this.#options.log.warn({ record: key, error: reason }, "could not write a record");
      } finally {
        if (this.#works.get(key) === mine) this.#forget(key);
      }
    });
    this.#works.set(key, mine);
  }

  async #writePool(name: string, onlyTell = false): Promise<boolean> {
    const store = this.#store(name), info = this.#poolInfo(name), { notes } = this.#options;
    if (!info && !onlyTell) await removeFile(notes, ".", `${name}.yaml`);
    if (!store || !info) return false;
    await this.#options.pools.ready(name);
    const text = writePoolRecord(info);
    if (decode(readBeneath(notes, `${name}.yaml`)) !== text && !onlyTell) {
      await replaceFile(notes, ".", `${name}.yaml`, text, 0o400);
    }
    if (readable(() => store.readPool()) === text) return false;
    if (!onlyTell) await store.writePool(text);
    return true;
  }

  /** @param name Without its project. @returns Whether the record was missing or outdated. */
  async #writeVolume(pool: string, name: string, onlyTell = false): Promise<boolean> {
    const volume = onDisk("custom", name);
    const store = this.#store(pool);
    if (!store || (onlyTell && this.#options.volumes.isBusy(pool, volume))) return false;
    return await this.#options.volumes.locks.hold([lockName(pool, volume)], async () => {
      await this.#options.pools.ready(pool);
      const row = volumeRow(this.#options.database, pool, "custom", name);
      if (!row) {
        if (!onlyTell) await store.removeVolume(volume.name);
        return false;
      }
      const text = writeVolumeRecord({
        name,
        description: String(row.description),
        createdAt: String(row.created_at),
        config: JSON.parse(String(row.config)),
        snapshots: this.#options.volumes.snapshotRows(Number(row.id)).map(viewSnapshot).map((one) => ({
          name: one.name,
          description: one.description,
          createdAt: one.created_at,
          expiresAt: one.expires_at ?? null,
          config: one.config,
        })),
      });
      if (readable(() => store.readVolume(volume.name)) === text) return false;
      if (!onlyTell) await store.writeVolume(volume.name, text);
      return true;
    });
  }

  async #writeInstance(name: string, onlyTell = false): Promise<boolean> {
    const volume: Volume = { type: "container", name };
    const pool = this.#poolOf(name);
    const store = pool === undefined ? undefined : this.#store(pool);
    if (pool === undefined || !store) return false;
    if (onlyTell && this.#options.volumes.isBusy(pool, volume)) return false;
    return await this.#options.volumes.locks.hold([lockName(pool, volume)], async () => {
      const row = volumeRow(this.#options.database, pool, "container", name);
      const text = row && this.#backup(name, pool, row);
      if (text === undefined) return false;
      await using _use = await this.#options.mounts.use(pool, volume);
      const before = readable(() => store.readBackup(directoryOf(volume)));
      if (before !== undefined && isSameBackup(before, text)) return false;
      if (!onlyTell) await store.writeBackup(directoryOf(volume), text);
      return true;
    });
  }

  #backup(name: string, pool: string, row: Row): string | undefined {
    const record = this.#instances.find(name);
    if (!record) return undefined;
    const snapshots = this.#instances.snapshots(record);
    const [expanded, ...ofSnapshots] = this.#instances.expandAll([record, ...snapshots]);
    const profiles = this.#options.database.all("SELECT * FROM profiles").filter((one) =>
      record.profiles.includes(String(one.name))
    );
    return writeBackup({
      instance: record,
      expanded: expanded!,
      snapshots: snapshots.map((snapshot, index) => ({ snapshot, expanded: ofSnapshots[index]! })),
      pool: this.#poolInfo(pool)!,
      profiles: profiles.map((one) => ({
        name: String(one.name),
        description: String(one.description),
        config: JSON.parse(String(one.config)) as Config,
        devices: JSON.parse(String(one.devices)) as Devices,
      })),
      volumeConfig: JSON.parse(String(row.config)),
    });
  }

  #poolInfo(name: string): PoolInfo | undefined {
    const row = this.#options.database.get("SELECT * FROM storage_pools WHERE name = ?", name);
    return row && {
      name,
      driver: String(row.driver),
      description: String(row.description),
      config: JSON.parse(String(row.config)),
    };
  }

  #instancesOn(pool: string): string[] {
    return this.#options.database.all(
      `SELECT storage_volumes.name FROM storage_volumes JOIN storage_pools ON storage_pools.id = pool_id
       WHERE storage_pools.name = ? AND type = 'container'`,
      pool,
    ).map((row) => String(row.name));
  }

  #poolOf(instance: string): string | undefined {
    const row = this.#options.database.get(
      `SELECT storage_pools.name FROM storage_volumes JOIN storage_pools ON storage_pools.id = pool_id
       WHERE type = 'container' AND storage_volumes.name = ?`,
      instance,
    );
    return row && String(row.name);
  }

  /** @returns undefined when the pool is not open: its records are verified when it is opened. */
  #store(pool: string): RecordStore | undefined {
    const root = this.#options.pools.rootOf(pool);
    return root === undefined ? undefined : new RecordStore(root);
  }

  /** As `#store`, but undefined for an unavailable pool. A mark that stays there is removed when the pool's records are verified. */
  #present(pool: string): RecordStore | undefined {
    return this.#options.pools.reason(pool) === undefined ? this.#store(pool) : undefined;
  }

  #mark(id: number, kind: string, payload: Readonly<Record<string, unknown>>): void {
    const pool = marked.test(kind) && typeof payload.pool === "string" ? payload.pool : undefined;
    const store = pool === undefined ? undefined : this.#present(pool);
    if (pool === undefined || !store) return;
    try {
      store.openIntent(`${this.#run}-${id}`, { kind, payload });
      this.#marks.set(id, pool);
    } catch (error) {
      // A full disk must not prevent a deletion.
      this.#options.log.warn({ pool, kind, error: messageInWords(error) }, "could not mark an operation in its pool");
    }
  }

  #unmark(id: number): void {
    const pool = this.#marks.get(id);
    if (pool === undefined) return;
    this.#marks.delete(id);
    this.#present(pool)?.closeIntent(`${this.#run}-${id}`);
  }
}

const decode = (bytes: Uint8Array | undefined) => bytes && new TextDecoder().decode(bytes);

/** A damaged record counts as missing, and is replaced. */
function readable(read: () => string | undefined): string | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
