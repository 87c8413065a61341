import { LidoError } from "../../api/errors.ts";
import type { Config, StorageVolume, StorageVolumePut, StorageVolumesPost } from "../../api/types.ts";
import type { Host } from "../../drivers/host/host.ts";
import {
  AlreadyThere,
  type Driver,
  InUse,
  type Volume,
  type VolumeType,
  type WatchOptions,
} from "../../drivers/storage/driver.ts";
import { flush } from "../../drivers/storage/tree.ts";
import { fromDisk } from "../../drivers/storage/layout.ts";
import type { Events } from "../events/events.ts";
import type { Intent, Journal, OpenIntent } from "../journal/journal.ts";
import type { Operations } from "../operations/operations.ts";
import type { Database, Row } from "../state/database.ts";
import { checkVolumeChange, checkVolumeConfig, sizeOf, withPoolDefaults } from "../config/storage.ts";
import { parseIdmap } from "../ids/idmaps.ts";
import { DiskLook, isBoth } from "./disk_look.ts";
import type { FileTree } from "./files.ts";
import { Locks } from "../store/locks.ts";
import { checkName } from "../store/names.ts";
import type { MountedVolumes } from "../pools/mounted.ts";
import { copyVolume, planCopy } from "./planner.ts";
import type { Pools } from "../pools/pools.ts";
import {
  forgetVolume,
  insertSnapshot,
  insertVolume,
  nameInUse,
  needVolumeRow,
  onDisk,
  snapshotRows,
  viewSnapshotAsVolume,
  viewVolume,
  volumeRow,
  volumeRows,
} from "../store/rows.ts";
import { followVolume, readUsage } from "../store/usage.ts";
import { checkType, createOptions, needQuota, onlyFor, refuseOverPool } from "./options.ts";
import { type UsedSpace, usedSpace } from "../pools/used_space.ts";

export interface VolumesOptions {
  readonly database: Database;
  readonly journal: Journal;
  readonly events: Events;
  readonly operations: Operations;
  readonly host: Host;
  readonly pools: Pools;
  readonly mounts: MountedVolumes;
  /** Which instances have a custom volume; from the instance service, which is built later. */
  readonly users: (pool: string, volume: string) => { name: string; isRunning: boolean }[];
}

interface VolumeIntent {
  readonly pool: string;
  readonly type: VolumeType;
  /** Name on disk. */
  readonly name: string;
}

interface RenameIntent extends VolumeIntent {
  readonly to: string;
}

export interface CreateForOptions extends WatchOptions {
  /** The volume to copy; absent makes an empty one. */
  readonly from?: Volume;
  /** Pool of `from`; absent means the new volume's pool. */
  readonly fromPool?: string;
  /** Names of the snapshots of `from` to copy. */
  readonly snapshots?: readonly string[];
  readonly config: Config;
  readonly sizeBytes?: bigint;
}

/** @param id The new row's. */
export type OnCommitted = (id: number) => (() => Promise<void>) | void;

/** A running instance cannot follow a volume to another name or pool. */
export const usedByRunning = "Volume is still in use by running instances";

/** The volumes of every pool: the API's verbs on custom volumes, and the creation and deletion of volumes of instances and images. */
export class Volumes {
  readonly #options: VolumesOptions;
  /** Named `pool/type/name on disk`. Operations on snapshots take the lock of their volume. */
  readonly locks = new Locks();
  readonly look: DiskLook;
  readonly #creating: OpenIntent<VolumeIntent>;
  readonly #deleting: OpenIntent<VolumeIntent>;
  readonly #renaming: OpenIntent<RenameIntent>;
  readonly #limiting: OpenIntent<VolumeIntent>;

  constructor(options: VolumesOptions) {
    this.#options = options;
    this.look = new DiskLook(options);
    const { journal } = options;
    const takeAway = async ({ pool, type, name }: VolumeIntent) => {
      const volume = { type, name }, driver = this.#driver(pool);
      if (driver) await options.mounts.alone(pool, volume, () => driver.delete(volume));
    };
    // No row to delete: it is inserted in the transaction that closes the intent.
    this.#creating = journal.kind<VolumeIntent>("volume.create", takeAway);
    this.#deleting = journal.kind<VolumeIntent>("volume.delete", async (intent) => {
      await takeAway(intent);
      forgetVolume(options, intent.pool, intent);
    });
    this.#renaming = journal.kind<RenameIntent>("volume.rename", async ({ pool, type, name, to }) => {
      // Rename back: the row still has the old name.
      const driver = this.#driver(pool);
      if (driver && !await isBoth(driver, type, name, to)) await driver.rename({ type, name: to }, name);
    });
    this.#limiting = journal.kind<VolumeIntent>("volume.limit", async ({ pool, type, name }) => {
      const driver = this.#driver(pool), volume = { type, name };
      const quota = driver?.facets.quota, row = volumeRow(options.database, pool, type, fromDisk(volume));
      if (!quota || !row || !await driver.exists(volume)) return;
      // The limit that the row says now: a later change may have been committed meanwhile.
      const undo = () => quota.set(volume, sizeOf(JSON.parse(String(row.config))), { evenBelowUse: true });
      await options.mounts.alone(pool, volume, undo).catch((error) => {
        // A block volume that cannot shrink stays larger than its row says; no data is lost by that.
        if (!(options.pools.kindOf(pool).isBlock && error instanceof LidoError)) throw error;
      });
    });
  }

  /** Volumes and, after each, its snapshots as "volume/snapshot"; in three queries, however many there are. */
  list(pool: string, type?: string): StorageVolume[] {
    const { database, pools } = this.#options;
    pools.id(pool);
    if (type !== undefined) checkType(type);
    const usage = readUsage(database);
    const volumes = volumeRows(database, pool, type).map((row) => viewVolume(row, usage));
    const all = [...volumes, ...snapshotRows(database, pool, type).map(viewSnapshotAsVolume)];
    const keys = new Map(all.map((one) => [one, `${one.type} ${one.name}`]));
    return all.sort((left, right) => keys.get(left)! < keys.get(right)! ? -1 : 1);
  }

  get(pool: string, type: string, name: string): StorageVolume {
    return viewVolume(this.row(pool, type, name), readUsage(this.#options.database));
  }

  /** @throws {LidoError} not_found. */
  row(pool: string, type: string, name: string): Row {
    this.#options.pools.id(pool);
    checkType(type);
    return needVolumeRow(this.#options.database, pool, type, name);
  }

  etag(pool: string, type: string, name: string): unknown {
    const { description, config } = this.row(pool, type, name);
    return [name, type, description, config];
  }

  /** The volume of a row, with its settings, as drivers take it. */
  volume(row: Row): Volume {
    return { ...onDisk(String(row.type) as VolumeType, String(row.name)), config: JSON.parse(String(row.config)) };
  }

  /** Creates an empty custom volume. */
  async create(pool: string, post: StorageVolumesPost): Promise<void> {
    const { name, description } = post;
    const config = this.checkNew(pool, post);
    await this.make(pool, { ...onDisk("custom", name), config }, { description, config }, async (driver, volume) => {
      await driver.create(volume, createOptions(driver, name, config));
    });
    this.#options.events.lifecycle("storage-volume-created", url(pool, "custom", name), { type: "custom" });
  }

  async update(
    pool: string,
    type: string,
    name: string,
    put: Partial<StorageVolumePut>,
    isPatch: boolean,
  ): Promise<void> {
    const row = this.row(pool, type, name);
    const volume = this.volume(row);
    await this.locks.hold([lockName(pool, volume)], async () => {
      const kind = this.#options.pools.kindOf(pool);
      const before: Config = JSON.parse(String(this.row(pool, type, name).config));
      const given = isPatch ? { ...before, ...put.config } : put.config ?? {};
      const config = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== ""));
      for (const [key, value] of Object.entries(before)) if (key.startsWith("volatile.")) config[key] ??= value;
      checkVolumeConfig(kind, fromDisk(volume), config);
      checkVolumeChange(kind, before, config);
      if (
        before["security.shifted"] !== config["security.shifted"] ||
        before["security.unmapped"] !== config["security.unmapped"]
      ) {
        this.refuseRunning(pool, name, "Cannot modify shifting with running instances using the volume");
      }
      const changed = { ...volume, config }, sizeBytes = sizeOf(config);
      const driver = await this.#options.pools.ready(pool);
      const isOwn = Object.keys(kind.volumeKeys).some((key) => before[key] !== config[key]);
      const configure = isOwn && driver.configureVolume ? () => driver.configureVolume!(changed, sizeBytes) : undefined;
      await using limit = configure || sizeOf(before) !== sizeBytes
        ? await this.limit(pool, changed, sizeBytes, configure)
        : undefined;
      this.#options.database.transaction(() => {
        this.#options.database.run(
          "UPDATE storage_volumes SET description = ?, config = ? WHERE id = ?",
          put.description ?? String(row.description),
          JSON.stringify(config),
          row.id!,
        );
        limit?.commit(() => {});
      });
      this.#options.events.lifecycle("storage-volume-updated", url(pool, type, name), { type });
    });
  }

  /** Limits a volume's size; the caller holds its lock. @param change Makes the change instead, when more than the limit changes.
   * @returns Intent that the caller commits with the change of the row; disposing of it sets the limit back.
   * @throws {LidoError} bad_request; nothing has changed then. */
  async limit(
    pool: string,
    volume: Volume,
    to: bigint | undefined,
    change?: () => Promise<void>,
  ): Promise<Intent> {
    const driver = this.#options.pools.driver(pool);
    const set = change ?? (() => needQuota(driver, fromDisk(volume)).set(volume, to));
    if (!change) needQuota(driver, fromDisk(volume));
    await refuseOverPool(driver, fromDisk(volume), to);
    const { type, name } = volume;
    const open = this.#limiting({ pool, type, name } satisfies VolumeIntent);
    try {
      await this.#options.mounts.alone(pool, volume, set);
      return open;
    } catch (error) {
      await open[Symbol.asyncDispose]();
      throw error;
    }
  }

  async rename(pool: string, name: string, to: string): Promise<void> {
    checkName("Storage volume", to);
    const from = onDisk("custom", name), target = onDisk("custom", to);
    await this.locks.hold([lockName(pool, from), lockName(pool, target)], async () => {
      const row = this.row(pool, "custom", name);
      await this.look.refuseTaken(pool, target);
      this.refuseRunning(pool, name, usedByRunning);
      const driver = this.#options.pools.driver(pool);
      const intent: RenameIntent = { pool, type: "custom", name: from.name, to: target.name };
      await using open = this.#renaming(intent);
      await this.#options.mounts.alone(pool, from, () => driver.rename(from, target.name)).catch((error) => {
        if (error instanceof AlreadyThere) open.commit(() => {});
        throw error;
      });
      open.commit(() => {
        this.#options.database.run("UPDATE storage_volumes SET name = ? WHERE id = ?", to, row.id!);
        followVolume(this.#options.database, { pool, name }, { pool, name: to });
      });
      this.#options.events.lifecycle("storage-volume-renamed", url(pool, "custom", to), { old_name: name });
    });
  }

  async delete(pool: string, type: string, name: string): Promise<void> {
    this.row(pool, type, name);
    if (type !== "custom") {
      throw new LidoError("bad_request", `Storage volumes of type "${type}" cannot be deleted with the storage API`);
    }
    this.refuseUsed(pool, name, "The storage volume is still in use");
    await this.deleteFor(
      pool,
      onDisk("custom", name),
      () => this.look.refuseUnknownSnapshots(pool, onDisk("custom", name)),
    );
    this.#options.events.lifecycle("storage-volume-deleted", url(pool, type, name), { type });
  }

  /** Space that a volume or a snapshot uses, in bytes. */
  async usedBytes(pool: string, type: VolumeType, name: string, snapshot?: string): Promise<bigint> {
    const volume = this.volume(this.row(pool, type, name));
    const of = snapshot === undefined ? volume : { ...volume, snapshot };
    return BigInt((await usedSpace(this.#options, pool, of)).used);
  }

  /** Bytes that a copy of a volume transfers; undefined when not known in advance. @param snapshots Names of the snapshots to copy with it. */
  async copiedBytes(pool: string, source: Volume, snapshots: readonly string[]): Promise<bigint | undefined> {
    const all = [...snapshots, source.snapshot];
    const used = (snapshot: string | undefined) => this.usedBytes(pool, source.type, fromDisk(source), snapshot);
    const { send } = this.#options.pools.driver(pool).facets;
    // Chained snapshots are sent as the first as a whole and then the differences: shared data counts once.
    const isChain = snapshots.length > 0 && send?.isChained;
    if (isChain && !send.writtenBytes) return undefined;
    let sum = 0n;
    for (const [index, snapshot] of all.entries()) {
      const { snapshot: _, ...volume } = source;
      const of = snapshot === undefined ? volume : { ...volume, snapshot };
      sum += isChain && index > 0 ? await send.writtenBytes!(of) : await used(snapshot);
    }
    return sum;
  }

  /** Space that a volume uses; null while the volume is being created or deleted. */
  async state(pool: string, type: string, name: string): Promise<{ usage: UsedSpace | null }> {
    const volume = this.volume(this.row(pool, type, name));
    try {
      return { usage: await usedSpace(this.#options, pool, volume) };
    } catch (error) {
      this.row(pool, type, name); // throws not_found when the volume was deleted meanwhile
      if (this.isBusy(pool, volume)) return { usage: null };
      throw error;
    }
  }

  /** The files of a custom volume, with the owners that a container sees, whether or not one uses the volume; mounted until disposed of. */
  async files(pool: string, name: string): Promise<FileTree & AsyncDisposable> {
    const volume = this.volume(this.row(pool, "custom", name));
    const use = await this.#options.mounts.use(pool, volume);
    const map = parseIdmap(volume.config?.["volatile.idmap.last"]);
    return { root: use.path, map, name: `volume "${name}"`, [Symbol.asyncDispose]: () => use[Symbol.asyncDispose]() };
  }

  /** Creates a volume and its row for an instance or an image, all or nothing. */
  async createFor(
    pool: string,
    volume: Volume,
    options: CreateForOptions,
  ): Promise<void> {
    const { from, fromPool = pool, snapshots = [], config, sizeBytes, ...watch } = options;
    const kind = this.#options.pools.kindOf(pool);
    const effective = withPoolDefaults(kind, onlyFor(this.#options.pools.config(pool), volume.type), config);
    const limit = sizeBytes ?? sizeOf(effective);
    await this.make(pool, { ...volume, config: effective }, { config }, async (driver, target) => {
      if (limit !== undefined) needQuota(driver, volume.name);
      await refuseOverPool(driver, volume.name, sizeBytes);
      const copy = { ...(limit === undefined ? {} : { sizeBytes: limit }), ...watch };
      if (!from) return await driver.create(target, copy);
      const source = { pool: fromPool, driver: this.#options.pools.driver(fromPool), volume: from };
      const place = { pool, driver, volume: target };
      const plan = planCopy(source, place, snapshots.length > 0);
      await copyVolume(this.#options, source, place, plan, { ...copy, snapshots });
    }, watch);
  }

  /** Creates a volume for an image, and its row once `fill` has filled it. @param signal Ends the waiting for the lock. */
  async createFilled(
    pool: string,
    volume: Volume,
    fill: (path: string) => Promise<void>,
    signal?: AbortSignal,
  ): Promise<void> {
    await this.make(pool, volume, { config: {} }, async (driver, target) => {
      await driver.create(target);
      await using use = await this.#options.mounts.use(pool, target);
      await fill(use.path);
      await (driver.flush?.(target) ?? flush(this.#options.host, use.path));
    }, { signal });
  }

  /** @returns Whether the volume has a row. */
  find(pool: string, volume: Volume): boolean {
    return volumeRow(this.#options.database, pool, volume.type, fromDisk(volume)) !== undefined;
  }

  /** Deletes the volume that `createFor` made. Only if it has a row: otherwise, whatever is on disk was not made by `createFor`. */
  async rollBackFor(pool: string, volume: Volume): Promise<void> {
    if (this.find(pool, volume)) await this.deleteFor(pool, volume);
  }

  /** Deletes a volume, all its snapshots and its row, as far as they exist. @param look Called under the lock; throws to refuse. */
  async deleteFor(pool: string, volume: Volume, look?: () => Promise<void>): Promise<void> {
    await this.locks.hold([lockName(pool, volume)], async () => {
      const driver = await this.#options.pools.ready(pool);
      await look?.();
      const intent: VolumeIntent = { pool, type: volume.type, name: volume.name };
      await this.#options.journal.settleBefore("volume.delete", intent);
      await using open = this.#deleting(intent);
      await this.#options.mounts.alone(pool, volume, () => driver.delete(volume)).catch((error) => {
        // Nothing was deleted: close the intent, so that the journal does not complete it.
        if (error instanceof InUse) open.commit(() => {});
        throw error;
      });
      open.commit(() => forgetVolume(this.#options, pool, volume));
    });
  }

  /** Whether an operation holds the volume's lock. */
  isBusy(pool: string, volume: Volume): boolean {
    return this.locks.isHeld(lockName(pool, volume));
  }

  snapshotRows(volumeId: number): Row[] {
    return this.#options.database.all(
      "SELECT * FROM storage_volume_snapshots WHERE volume_id = ? ORDER BY id",
      volumeId,
    );
  }

  /** Creates a volume and its row, all or nothing.
   * @param fill Creates the volume on disk. It may return a function that is called in the transaction of the row, and that may return work for after
   * the commit, with the locks still held.
   * @param options.signal Ends the waiting for the locks; `fill` itself must stop on it. */
  async make(
    pool: string,
    volume: Volume,
    row: { description?: string; config: Config },
    fill: (driver: Driver, volume: Volume) => Promise<OnCommitted | void>,
    { alsoHeld = [], signal }: { readonly alsoHeld?: readonly string[]; readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    const name = fromDisk(volume);
    await this.locks.hold([lockName(pool, volume), ...alsoHeld], async () => {
      const { database, pools } = this.#options;
      const poolId = pools.id(pool);
      const driver = await pools.ready(pool);
      const intent: VolumeIntent = { pool, type: volume.type, name: volume.name };
      await this.#options.journal.settleBefore("volume.create", intent);
      await this.look.refuseTaken(pool, volume);
      await refuseOverPool(driver, name, sizeOf(volume.config ?? {}));
      await using open = this.#creating(intent);
      const finish = await fill(driver, volume).catch((error) => {
        // Created by something else since the look: not ours to delete.
        if (error instanceof AlreadyThere) open.commit(() => {});
        const reason = signal?.aborted ? undefined : driver.shortage?.();
        throw reason === undefined ? error : new LidoError("unavailable", reason);
      });
      const rest = open.commit(() => {
        const id = insertVolume(database, { poolId, type: volume.type, name, ...row });
        return finish?.(id);
      });
      await rest?.();
    }, signal);
  }

  /** Deletes a volume's row, within a transaction of the caller's.
   * @returns A function that deletes the volume on disk. When it fails the journal does it, at the latest at the next start. */
  deleteAfterCommit(pool: string, volume: Volume): () => Promise<void> {
    const intent = this.#deleting({ pool, type: volume.type, name: volume.name } satisfies VolumeIntent);
    forgetVolume(this.#options, pool, volume);
    return async () => {
      await using open = intent;
      try {
        await this.#options.mounts.alone(pool, volume, () => this.#options.pools.driver(pool).delete(volume));
        open.commit(() => {});
      } catch {
        // completed, or tried again later, by the journal
      }
    };
  }

  /** @returns The settings of a requested custom volume, with its pool's defaults.
   * @throws {LidoError} When the volume cannot be created. */
  checkNew(pool: string, post: StorageVolumesPost): Config {
    const { pools } = this.#options;
    pools.id(pool);
    checkName("Storage volume", post.name);
    if (post.type !== "custom") {
      throw new LidoError(
        "bad_request",
        `Storage volumes of type "${post.type}" cannot be created with the storage API`,
      );
    }
    if (post.content_type !== "filesystem") {
      throw new LidoError(
        "bad_request",
        `Invalid content type "${post.content_type}": only "filesystem" is allowed, containers cannot use others`,
      );
    }
    const kind = pools.kindOf(pool);
    const config = withPoolDefaults(kind, pools.config(pool), post.config);
    checkVolumeConfig(kind, post.name, config);
    if (volumeRow(this.#options.database, pool, "custom", post.name)) throw nameInUse(pool, post.name);
    if (sizeOf(config) !== undefined) needQuota(pools.driver(pool), post.name);
    return config;
  }

  insertSnapshots(volumeId: number, snapshots: readonly Row[]): void {
    for (const row of snapshots) insertSnapshot(this.#options.database, volumeId, row);
  }

  /** @throws {LidoError} bad_request with `text` when an instance or a profile uses the volume. */
  refuseUsed(pool: string, name: string, text: string): void {
    if (readUsage(this.#options.database).ofVolume(pool, name).length > 0) throw new LidoError("bad_request", text);
  }

  /** @throws {LidoError} bad_request with `text` when a running instance uses the volume. */
  refuseRunning(pool: string, name: string, text: string): void {
    if (this.#options.users(pool, name).some(({ isRunning }) => isRunning)) throw new LidoError("bad_request", text);
  }

  #driver(pool: string): Driver | undefined {
    // The pool may have been deleted, with all its volumes.
    if (!this.#options.pools.names().includes(pool)) return undefined;
    return this.#options.pools.driver(pool);
  }
}

export function lockName(pool: string, volume: Volume): string {
  return `${pool}/${volume.type}/${volume.name}`;
}

export function url(pool: string, type: string, name: string): string {
  return `/1.0/storage-pools/${pool}/volumes/${type}/${name}`;
}
