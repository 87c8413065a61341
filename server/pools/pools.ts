import { stat } from "node:fs/promises";
import { join } from "node:path";
import { LidoError, messageOf, notFound } from "../../api/errors.ts";
import { parseSizeBytes } from "../../api/size.ts";
import type { Config, ResourcesStoragePool, StoragePool, StoragePoolsPost } from "../../api/types.ts";
import type { Host } from "../../drivers/host/host.ts";
import type { Driver, DriverKind, Pool, Volume, VolumeType } from "../../drivers/storage/driver.ts";
import { pathOf } from "../../drivers/storage/directory_volumes.ts";
import { driverKinds } from "../../drivers/storage/registry.ts";
import type { Events } from "../events/events.ts";
import type { Journal, OpenIntent } from "../journal/journal.ts";
import type { Database, Row } from "../state/database.ts";
import { checkPoolConfig, refuseShared } from "../config/storage.ts";
import { Locks } from "../store/locks.ts";
import { type MissingDriver, probeDrivers, type SupportedDriver } from "./driver_probes.ts";
import { findSource, refuseFound, removeEmpty } from "./found_pool.ts";
import { checkName } from "../store/names.ts";
import { PoolAvailability } from "./availability.ts";
import { type FoundIntent, growAgain, type GrowIntent, type PoolIntent } from "./intents.ts";
import { type LookAt, PoolSources } from "./sources.ts";
import { type PoolFailure, unmadePool, viewPool } from "./view.ts";
import { deletePoolRows, onDisk, volumeRows } from "../store/rows.ts";
import { readUsage, type Usage } from "../store/usage.ts";

/** Unavailable pools are tried again this often. */
const retryEveryMs = 60_000;
/** A request for an unavailable pool tries again, too, if the last try is longer ago than this. */
const retryAskedMs = 2_000;

export interface PoolsOptions {
  readonly database: Database;
  readonly journal: Journal;
  readonly events: Events;
  readonly host: Host;
  readonly log: { warn(context: object, message: string): void };
  /** Called for each pool that existed before and has been opened. */
  readonly opened: (name: string) => void;
  readonly paths: { readonly storagePools: string; readonly disks: string };
  readonly lookAt: LookAt;
}

/** The storage pools: their rows, and the drivers of the open ones. */
export class Pools {
  readonly #options: PoolsOptions;
  readonly #drivers = new Map<string, Driver>();
  /** Of the open pools, by name. */
  readonly #presences = new Map<string, PoolAvailability>();
  /** Why a pool is not open. */
  readonly #unavailable = new Map<string, string>();
  readonly sources: PoolSources;
  readonly #locks = new Locks();
  readonly #creating: OpenIntent<PoolIntent>;
  readonly #deleting: OpenIntent<PoolIntent>;
  readonly #growing: OpenIntent<GrowIntent>;
  readonly #finding: OpenIntent<FoundIntent>;
  #retry: NodeJS.Timeout | undefined;
  #retriedAt = 0;
  #probed: ReturnType<typeof probeDrivers> | undefined;

  constructor(options: PoolsOptions) {
    this.#options = options;
    this.sources = new PoolSources(options.lookAt, options.host.mounts);
    const takeAway = async ({ name, driver, config }: PoolIntent) => {
      this.#drivers.delete(name);
      await this.kind(driver).destroy(options.host, this.#poolOf(name, config), this.#volumesOf(name));
      deletePoolRows(options, name);
    };
    this.#creating = options.journal.kind<PoolIntent>("pool.create", takeAway);
    this.#deleting = options.journal.kind<PoolIntent>("pool.delete", takeAway);
    // Rolled back: a pool that was opened for a look is closed again.
    this.#finding = options.journal.kind<FoundIntent>("pool.find", async (intent) => {
      if (this.names().includes(intent.name)) return;
      const pool = this.#poolOf(intent.name, intent.config);
      if (!intent.wasInUse) await (await this.kind(intent.driver).open(options.host, pool, { readOnly: true })).close();
      if (!intent.wasThere) await removeEmpty(pool.root);
    });
    // Completed, since a pool cannot shrink.
    this.#growing = options.journal.kind<GrowIntent>("pool.grow", async ({ name, size }) => {
      if (!this.names().includes(name) || !await growAgain(this.driver(name), size)) return;
      this.#setDriver(name, this.driver(name));
      this.#storeConfig(name, { ...this.config(name), size });
    });
  }

  /** Opens every pool. A pool that cannot be opened does not stop the others; it is tried again. */
  async start(): Promise<void> {
    await this.#openAll();
    this.#retriedAt = Date.now();
    this.#retry = setInterval(() => this.#retryNow(), retryEveryMs).unref();
  }

  /** Tries to open the unavailable pools again; if one could be opened, ends the intents that waited for it. */
  async retry(): Promise<void> {
    this.#retriedAt = Date.now();
    const away = this.names().filter((name) => this.reason(name) !== undefined);
    if (away.length === 0) return;
    await this.#openAll();
    if (away.some((name) => this.#drivers.has(name) && this.reason(name) === undefined)) {
      await this.#options.journal.recover();
    }
  }

  #retryNow(): void {
    if (Date.now() - this.#retriedAt < retryAskedMs) return;
    this.#retriedAt = Date.now();
    this.retry().catch((error) => this.#options.log.warn({ error: messageOf(error) }, "cannot retry storage pools"));
  }

  /** @param isLetGo Which pools to release on the host until the next start; the others stay mounted, since containers go on without the daemon. */
  async close(isLetGo: (name: string) => boolean = () => false): Promise<void> {
    clearInterval(this.#retry);
    this.sources.close();
    const pools = this.open().filter(({ pool: { name } }) => this.reason(name) === undefined && isLetGo(name));
    await Promise.all(
      pools.map((driver) =>
        driver.close().catch((error) =>
          this.#options.log.warn({ pool: driver.pool.name, error: messageOf(error) }, "cannot let go of a storage pool")
        )
      ),
    );
  }

  list(): StoragePool[] {
    const { database } = this.#options, usage = readUsage(database), failures = this.#failures();
    const rows = database.all("SELECT * FROM storage_pools").map((row) => this.#view(row, usage, failures));
    return [...rows, ...this.#unmade()].sort((left, right) => left.name < right.name ? -1 : 1);
  }

  names(): string[] {
    return this.#options.database.all("SELECT name FROM storage_pools ORDER BY name").map((row) => String(row.name));
  }

  /** @throws {LidoError} not_found. */
  get(name: string): StoragePool {
    const unmade = this.#unmade().find((pool) => pool.name === name);
    return unmade ?? this.#view(this.#row(name), readUsage(this.#options.database), this.#failures());
  }

  /** @returns The fields from which the pool's ETag is computed. */
  etag(name: string): unknown {
    const { driver, description, config } = this.get(name);
    return [name, driver, description, config];
  }

  /** @returns The row's id. @throws {LidoError} not_found. */
  id(name: string): number {
    return Number(this.#row(name).id);
  }

  /** The drivers of the pools that are open. */
  open(): Driver[] {
    return [...this.#drivers.values()];
  }

  /** Why a pool is unavailable: not open, or not at its path any more; undefined when it can be used. */
  reason(name: string): string | undefined {
    if (!this.#drivers.has(name)) return this.#unavailable.get(name) ?? "not opened yet";
    return this.sources.silence(name) ?? this.#presences.get(name)?.absence() ?? this.#drivers.get(name)?.absence?.();
  }

  /** Where a volume is when its pool is available, and whether the pool is. */
  placeOf(name: string, volume: Volume): { readonly path: string; readonly isAvailable: boolean } {
    const path = this.#drivers.get(name)?.path(volume) ?? pathOf(this.#poolOf(name, {}), volume);
    return { path, isAvailable: this.reason(name) === undefined };
  }

  /** Whether the pool is being created, changed or deleted. */
  isBusy(name: string): boolean {
    return this.#locks.isHeld(name);
  }

  config(name: string): Config {
    return JSON.parse(String(this.#row(name).config));
  }

  kindOf(name: string): DriverKind {
    return this.kind(String(this.#row(name).driver));
  }

  /** @throws {LidoError} bad_request for a driver that does not exist. */
  kind(driver: string): DriverKind {
    const kind = driverKinds.get(driver);
    if (!kind) {
      const names = [...driverKinds.keys()].sort().join(", ");
      throw new LidoError("bad_request", `Unknown driver "${driver}": ${names} are allowed`);
    }
    return kind;
  }

  /** Where an open pool is on the host; undefined when it is not open. */
  rootOf(name: string): string | undefined {
    return this.#drivers.get(name)?.pool.root;
  }

  /** @throws {LidoError} not_found, or unavailable with the reason. */
  driver(name: string): Driver {
    const driver = this.#drivers.get(name), reason = this.reason(name);
    if (driver && reason === undefined) return driver;
    this.#row(name);
    this.#retryNow();
    throw new LidoError("unavailable", `Storage pool "${name}" is unavailable: ${reason}`);
  }

  /** `driver` for work that begins now; waits first for the answer of a filesystem that may not answer. */
  async ready(name: string): Promise<Driver> {
    await this.sources.answered(name);
    return this.driver(name);
  }

  async create(post: StoragePoolsPost): Promise<void> {
    const { name, description } = post;
    checkName("Storage pool", name);
    const kind = this.kind(post.driver);
    checkPoolConfig(kind, post.config);
    const config = Object.fromEntries(Object.entries(post.config).filter(([, value]) => value !== ""));
    await this.#locks.hold([name], async () => {
      const { database, host, events } = this.#options;
      if (database.get("SELECT id FROM storage_pools WHERE name = ?", name)) {
        throw new LidoError("conflict", "The storage pool already exists: The record already exists");
      }
      if (this.#unmade().some((pool) => pool.name === name)) {
        throw new LidoError(
          "conflict",
          `The storage pool already exists: its creation was cut off; "lido storage delete ${name}" takes away what is left`,
        );
      }
      const probed = await kind.probe(host);
      if ("missing" in probed) {
        throw new LidoError("bad_request", `Cannot use driver "${kind.name}": ${probed.missing}`);
      }
      await this.sources.needNew(this.#poolOf(name, config));
      const planned = await kind.plan(host, this.#poolOf(name, config));
      refuseShared(database, planned);
      await refuseFound(this.#poolOf(name, planned));
      await using intent = this.#creating({ name, driver: kind.name, config: planned });
      const driver = await kind.create(host, this.#poolOf(name, planned));
      intent.commit(() =>
        database.run(
          "INSERT INTO storage_pools (name, driver, description, state, config) VALUES (?, ?, ?, 'Created', ?)",
          name,
          kind.name,
          description,
          JSON.stringify(planned),
        )
      );
      this.#setDriver(name, driver);
      this.#probed = undefined;
      events.lifecycle("storage-pool-created", `/1.0/storage-pools/${name}`, { driver: kind.name });
    });
  }

  /** Opens a pool that is on disk but not known, for `work`. Afterwards the host is as before, unless `keep` was called: it inserts the pool's row.
   * @throws {LidoError} bad_request when there is no such pool, or its source is in use; conflict when the name is known. */
  async withFound<T>(
    post: Pick<StoragePoolsPost, "name" | "driver" | "config">,
    work: (driver: Driver, keep: (info: { description: string; config: Config }) => void) => Promise<T>,
  ): Promise<T> {
    const { name } = post;
    const { database, host, events } = this.#options;
    checkName("Storage pool", name);
    const kind = this.kind(post.driver);
    checkPoolConfig(kind, post.config);
    return await this.#locks.hold([name], async () => {
      if (this.names().includes(name) || this.#unmade().some((pool) => pool.name === name)) {
        throw new LidoError("conflict", `The storage pool "${name}" is known already`);
      }
      const bare = this.#poolOf(name, post.config);
      await this.sources.needNew(bare);
      const source = await findSource(bare);
      const pool = this.#poolOf(name, { ...post.config, source });
      refuseShared(database, pool.config);
      const intent: FoundIntent = {
        name,
        driver: kind.name,
        config: pool.config,
        wasInUse: await (kind.isInUse?.(host, pool) ?? host.mounts.at(pool.root).then((mount) => mount !== undefined)),
        wasThere: await stat(pool.root).then(() => true, () => false),
      };
      await using open = this.#finding(intent);
      const driver = await kind.open(host, pool, { readOnly: true });
      const result = await work(driver, ({ description, config }) => {
        open.commit(() =>
          database.run(
            "INSERT INTO storage_pools (name, driver, description, state, config) VALUES (?, ?, ?, 'Created', ?)",
            name,
            kind.name,
            description,
            JSON.stringify({ ...config, source }),
          )
        );
        this.#setDriver(name, driver);
        this.#options.opened(name);
        events.lifecycle("storage-pool-created", `/1.0/storage-pools/${name}`, { driver: kind.name });
      });
      // It was opened read-only; now that it is known, open it for changes.
      if (this.#drivers.get(name) === driver) await this.#openNow(name, this.#row(name));
      return result;
    });
  }

  /** @param isPatch Whether keys that are not given stay. */
  async update(
    name: string,
    put: { description?: string | undefined; config: Config },
    isPatch: boolean,
  ): Promise<void> {
    await this.#locks.hold([name], async () => {
      const row = this.#row(name);
      const kind = this.kind(String(row.driver)), before: Config = JSON.parse(String(row.config));
      const given = isPatch ? { ...before, ...put.config } : put.config;
      const config = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== ""));
      // LXD's client omits the keys that it does not show; keys that were fixed at creation stay.
      for (const [key, { fixed }] of Object.entries(kind.poolKeys)) {
        if (!fixed) continue;
        if (config[key] !== undefined && config[key] !== before[key]) {
          const text = key === "source"
            ? "Pool source cannot be changed when not in pending state"
            : `Option "${key}" cannot be changed`;
          throw new LidoError("bad_request", text);
        }
        if (before[key] !== undefined) config[key] = before[key];
      }
      checkPoolConfig(kind, config);
      if (before.size !== undefined) config.size ??= before.size;
      const store = () => {
        this.#storeConfig(name, config);
        const description = put.description ?? String(row.description);
        this.#options.database.run("UPDATE storage_pools SET description = ? WHERE name = ?", description, name);
      };
      if (config.size !== undefined && config.size !== before.size) await this.#grow(name, config.size, store);
      else this.#options.database.transaction(store);
      this.#drivers.get(name)?.configure?.(config);
      this.#options.events.lifecycle("storage-pool-updated", `/1.0/storage-pools/${name}`);
    });
  }

  async delete(name: string): Promise<void> {
    await this.#locks.hold([name], async () => {
      if (await this.#settleCutOff(name)) return;
      const row = this.#row(name);
      const { database, host, events } = this.#options;
      // Unpacked images are the daemon's own copies; everything else belongs to a user.
      const users = readUsage(database).ofPool(name).filter((url) => !url.startsWith("/1.0/images/"));
      if (users.length > 0) throw new LidoError("bad_request", "The storage pool is currently in use");
      const config: Config = JSON.parse(String(row.config));
      const kind = this.kind(String(row.driver));
      await this.sources.need(this.#poolOf(name, config));
      await this.#drivers.get(name)?.refuseDestroy?.();
      await this.#refuseCovered(name, config);
      await using intent = this.#deleting({ name, driver: kind.name, config });
      this.#drivers.delete(name);
      await kind.destroy(host, this.#poolOf(name, config), this.#volumesOf(name));
      intent.commit(() => deletePoolRows(this.#options, name));
      this.#unavailable.delete(name);
      this.sources.forget(name);
      events.lifecycle("storage-pool-deleted", `/1.0/storage-pools/${name}`);
    });
  }

  async resources(name: string): Promise<ResourcesStoragePool> {
    const { space, inodes } = await (await this.ready(name)).resources();
    return {
      space: { used: Number(space.used), total: Number(space.total) },
      inodes: { used: Number(inodes.used), total: Number(inodes.total) },
    };
  }

  /** What the facet "health" says. @throws {LidoError} not_implemented with the reason when the driver cannot tell. */
  async health(name: string): Promise<{ ok: boolean; text: string }> {
    const { facets, absent } = this.driver(name);
    if (!facets.health) throw new LidoError("not_implemented", `Cannot tell the health of "${name}": ${absent.health}`);
    return await facets.health.check();
  }

  /** The drivers that work on this host. Probed once, and again after a pool was created. */
  async supported(): Promise<SupportedDriver[]> {
    return (await (this.#probed ??= probeDrivers(this.#options.host))).supported;
  }

  /** The drivers that do not work on this host, and why. */
  async missing(): Promise<MissingDriver[]> {
    return (await (this.#probed ??= probeDrivers(this.#options.host))).missing;
  }

  /** Names of the drivers of all pools. */
  usedDrivers(): string[] {
    return this.#options.database.all("SELECT DISTINCT driver FROM storage_pools ORDER BY driver").map((row) =>
      String(row.driver)
    );
  }

  async #grow(name: string, size: string, store: () => void): Promise<void> {
    const { resize } = this.driver(name).facets;
    if (!resize) throw new LidoError("bad_request", `Cannot change "size": ${this.driver(name).absent.resize}`);
    const sizeBytes = parseSizeBytes(size)!;
    await resize.check(sizeBytes);
    await using intent = this.#growing({ name, size } satisfies GrowIntent);
    await resize.grow(sizeBytes);
    this.#setDriver(name, this.driver(name));
    intent.commit(store);
  }

  #storeConfig(name: string, config: Config): void {
    this.#options.database.run("UPDATE storage_pools SET config = ? WHERE name = ?", JSON.stringify(config), name);
  }

  #volumesOf(name: string): Volume[] {
    return volumeRows(this.#options.database, name).map((row) => onDisk(row.type as VolumeType, String(row.name)));
  }

  async #openAll(): Promise<void> {
    const away = this.names().filter((name) => this.reason(name) !== undefined);
    await Promise.all(away.map((name) => this.#locks.hold([name], () => this.#open(name))));
  }

  /** Opens a pool, unless it was deleted or opened while this waited for its lock. */
  async #open(name: string): Promise<void> {
    const row = this.#options.database.get("SELECT * FROM storage_pools WHERE name = ?", name);
    if (row && this.reason(name) !== undefined && await this.#openNow(name, row)) this.#options.opened(name);
  }

  /** @returns Whether it could be opened. */
  async #openNow(name: string, row: Row): Promise<boolean> {
    try {
      const pool = this.#poolOf(name, JSON.parse(String(row.config)));
      await this.sources.need(pool);
      this.#setDriver(name, await this.kind(String(row.driver)).open(this.#options.host, pool));
      return true;
    } catch (error) {
      this.#unavailable.set(name, messageOf(error));
      this.#options.log.warn({ pool: name, error: messageOf(error) }, "cannot open a storage pool");
      return false;
    }
  }

  #setDriver(name: string, driver: Driver): void {
    this.#drivers.set(name, driver);
    this.#presences.set(name, new PoolAvailability(driver.pool));
    this.sources.watch(driver.pool);
    this.#unavailable.delete(name);
  }

  /** Refuses to delete a pool that something is mounted over: that would be emptied instead. @throws {LidoError} unavailable. */
  async #refuseCovered(name: string, config: Config): Promise<void> {
    const isReplaced = this.#drivers.has(name) && this.#presences.get(name)?.isReplaced();
    const { root } = this.#poolOf(name, config);
    if (!isReplaced || !await this.#options.host.mounts.at(root)) return;
    throw new LidoError("unavailable", `Cannot delete storage pool "${name}": ${this.reason(name)}`);
  }

  #poolOf(name: string, config: Config): Pool {
    const { storagePools, disks } = this.#options.paths;
    return { name, config, root: join(storagePools, name), diskFile: join(disks, `${name}.img`) };
  }

  #row(name: string): Row {
    const row = this.#options.database.get("SELECT * FROM storage_pools WHERE name = ?", name);
    if (!row) throw notFound("Storage pool", name);
    return row;
  }

  /** Pools without a row: those that are being created (Pending), and those whose interrupted creation could not be rolled back (Errored). */
  #unmade(): StoragePool[] {
    return this.#options.journal.openOf<PoolIntent>("pool.create").map((
      { payload: { name, driver, config }, isActive },
    ) => unmadePool({ name, driver, config, isActive }));
  }

  /** Ends an interrupted creation or deletion of a pool. @returns Whether there was one: the pool is deleted then. */
  async #settleCutOff(name: string): Promise<boolean> {
    const { journal, events } = this.#options;
    const open = ["pool.create", "pool.delete"].flatMap((kind) => journal.openOf<PoolIntent>(kind)).filter((one) =>
      one.payload.name === name && !one.isActive
    );
    for (const { id } of open) await journal.settle(id);
    if (open.length > 0) events.lifecycle("storage-pool-deleted", `/1.0/storage-pools/${name}`);
    return open.length > 0;
  }

  #view(row: Row, usage: Usage, failures: (name: string) => PoolFailure | undefined): StoragePool {
    const name = String(row.name);
    return viewPool(row, usage.ofPool(name), this.#drivers.get(name), failures(name));
  }

  /** @returns A function that says why a pool is half deleted or unavailable; undefined when it is neither. */
  #failures(): (name: string) => PoolFailure | undefined {
    const open = this.#options.journal.openOf<PoolIntent>("pool.delete");
    const halfDeleted = new Set(open.filter(({ isActive }) => !isActive).map(({ payload }) => payload.name));
    return (name) => {
      if (halfDeleted.has(name)) return { status: "Errored", reason: "its deletion was cut off; delete it again" };
      const reason = this.reason(name);
      if (reason === undefined) return undefined;
      this.#retryNow();
      return { status: "Unavailable", reason };
    };
  }
}
