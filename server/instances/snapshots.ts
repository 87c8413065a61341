import { LidoError } from "../../api/errors.ts";
import { parseSizeBytes } from "../../api/size.ts";
import { AlreadyThere, type Snapshots, type WatchOptions } from "../../drivers/storage/driver.ts";
import type { LifecycleAction } from "../events/actions.ts";
import type { OpenIntent } from "../journal/journal.ts";
import type { Operation } from "../operations/operations.ts";
import { watch } from "../operations/progress.ts";
import { refuseLost } from "../volumes/disk_look.ts";
import { endRestore } from "../volumes/restore.ts";
import { storedConfig } from "../store/rows.ts";
import { isRoot, rootOn } from "../config/devices.ts";
import { checkSnapshotName } from "./names.ts";
import type { InstanceServices } from "./services.ts";
import { type InstanceRecord, type InstanceTable, merge, type SnapshotRecord } from "./table.ts";
import { type Rootfs, volumeLock, volumeOf } from "./disks/rootfs.ts";

interface SnapshotIntent {
  name: string;
  pool: string;
  snapshot: string;
}

interface RestoreIntent extends SnapshotIntent {
  /** The settings that the instance had. */
  before: SnapshotSettings;
  /** Names of the later snapshots that the restore deletes. */
  lost?: readonly string[];
}

type SnapshotSettings = Pick<InstanceRecord, "config" | "devices" | "profiles">;

interface RenameIntent extends SnapshotIntent {
  to: string;
}

/** Snapshots of instances: their settings in the database, their content by the pool's snapshot facet. */
export class InstanceSnapshots {
  readonly #services: InstanceServices;
  readonly #records: InstanceTable;
  readonly #rootfs: Rootfs;
  readonly #openChange: OpenIntent<SnapshotIntent>;
  readonly #openRename: OpenIntent<RenameIntent>;
  readonly #openRestore: OpenIntent<RestoreIntent>;
  readonly #openCleaning: OpenIntent<SnapshotIntent>;

  constructor(services: InstanceServices, records: InstanceTable, rootfs: Rootfs) {
    this.#services = services;
    this.#records = records;
    this.#rootfs = rootfs;
    // A half-made snapshot and a half-deleted one are both deleted.
    this.#openChange = services.journal.kind<SnapshotIntent>("instance.snapshot", async (payload) => {
      await this.#facet(payload.pool).delete({ ...volumeOf(payload.name), snapshot: payload.snapshot });
      const record = this.#records.find(payload.name);
      if (record) this.#records.deleteSnapshot(record, payload.snapshot);
    });
    this.#openRename = services.journal.kind<RenameIntent>("instance.snapshot.rename", async (payload) => {
      const facet = this.#facet(payload.pool);
      const names = await facet.list(volumeOf(payload.name));
      if (names.includes(payload.to) && !names.includes(payload.snapshot)) {
        await facet.rename({ ...volumeOf(payload.name), snapshot: payload.to }, payload.snapshot);
      }
    });
    this.#openRestore = services.journal.kind<RestoreIntent>("instance.restore", async (payload, cause) => {
      const record = this.#records.find(payload.name);
      const snapshot = record && this.#records.findSnapshot(record, payload.snapshot);
      if (!record || !snapshot) return;
      const facet = this.#facet(payload.pool);
      const { name, lost = [] } = payload;
      if (await endRestore(facet, { ...volumeOf(name), snapshot: payload.snapshot }, lost)) {
        this.#records.update(name, this.#settingsOf(snapshot, record, payload.pool));
        this.#deleteRecords(record, lost);
      } else if (cause === "failed") {
        this.#records.update(name, payload.before);
      } else {
        // After a kill, how far the restore came is not known: it is repeated.
        await this.#restore(payload, lost);
        this.#records.update(name, this.#settingsOf(snapshot, record, payload.pool));
        this.#deleteRecords(record, lost);
      }
      await this.#limit(name, payload.pool);
      await this.#afterRestore(payload.pool, name);
    });
    this.#openCleaning = services.journal.kind<SnapshotIntent>("instance.restored", async ({ name, pool }) => {
      await this.#limit(name, pool);
      await this.#afterRestore(pool, name);
    });
  }

  list(record: InstanceRecord): SnapshotRecord[] {
    return this.#records.snapshots(record);
  }

  /** @throws {LidoError} not_found with LXD's text. */
  get(record: InstanceRecord, name: string): SnapshotRecord {
    const snapshot = this.#records.findSnapshot(record, name);
    if (!snapshot) {
      throw new LidoError(
        "not_found",
        `Failed to fetch snapshot "${name}" of instance "${record.name}" in project "default": InstanceSnapshot not found`,
      );
    }
    return snapshot;
  }

  /** @returns A name for an unnamed snapshot: "snap0", "snap1", …; taken neither in the database nor on disk. */
  async nextName(record: InstanceRecord): Promise<string> {
    const present = await (await this.#ready(this.#rootfs.poolOf(record))).list(volumeOf(record.name));
    const taken = [...this.list(record).map(({ name }) => name), ...present];
    const numbers = taken.map((name) => Number(/^snap(\d{1,9})$/.exec(name)?.[1] ?? -1));
    return `snap${Math.max(-1, ...numbers) + 1}`;
  }

  /** @throws {LidoError} conflict, or not_implemented where the pool has no snapshots. */
  async create(
    record: InstanceRecord,
    name: string,
    expiresAt: string | undefined,
    operation: Operation,
  ): Promise<void> {
    checkSnapshotName(name);
    if (this.#records.findSnapshot(record, name)) {
      throw new LidoError(
        "conflict",
        `Failed creating instance snapshot record "${name}": Add snapshot info to the database: This "instances_snapshots" entry already exists`,
      );
    }
    const pool = this.#rootfs.poolOf(record);
    const facet = await this.#ready(pool);
    const target = { ...volumeOf(record.name), snapshot: name };
    await this.#services.volumes.look.refuseTakenSnapshot(pool, target);
    await using intent = this.#openChange({ name: record.name, pool, snapshot: name });
    // A running container must not write while its files are copied one after the other.
    const mustFreeze = facet.cost !== "instant" && this.#services.runtime.get(record.name)?.status === "running";
    if (mustFreeze) await this.#services.runtime.freeze(record.name);
    try {
      const total = () => this.#services.volumes.usedBytes(pool, "container", record.name);
      await facet.create(target, watch(operation, record.name, total));
    } catch (error) {
      if (error instanceof AlreadyThere) intent.commit(() => {});
      throw error;
    } finally {
      if (mustFreeze) await this.#services.runtime.unfreeze(record.name);
    }
    operation.sealUnlessCancelled();
    intent.commit(() => this.#records.insertSnapshot(record, name, expiresAt));
    this.#publish("instance-snapshot-created", record.name, name);
  }

  async delete(record: InstanceRecord, name: string): Promise<void> {
    this.get(record, name);
    const pool = this.#rootfs.poolOf(record), facet = await this.#ready(pool);
    await using intent = this.#openChange({ name: record.name, pool, snapshot: name });
    // The lock keeps it from being deleted while it is copied.
    await this.#services.volumes.locks.hold([volumeLock(pool, record.name)], async () => {
      await facet.delete({ ...volumeOf(record.name), snapshot: name });
      intent.commit(() => this.#records.deleteSnapshot(record, name));
    });
    this.#publish("instance-snapshot-deleted", record.name, name);
  }

  async rename(record: InstanceRecord, name: string, to: string): Promise<void> {
    checkSnapshotName(to);
    const snapshot = this.get(record, name);
    if (this.#records.findSnapshot(record, to)) throw new LidoError("conflict", `Name "${to}" already in use`);
    const pool = this.#rootfs.poolOf(record), facet = await this.#ready(pool);
    await this.#services.volumes.look.refuseTakenSnapshot(pool, { ...volumeOf(record.name), snapshot: to });
    await using intent = this.#openRename({ name: record.name, pool, snapshot: name, to });
    await this.#services.volumes.locks.hold([volumeLock(pool, record.name)], async () => {
      await facet.rename({ ...volumeOf(record.name), snapshot: name }, to).catch((error) => {
        if (error instanceof AlreadyThere) intent.commit(() => {});
        throw error;
      });
      intent.commit(() => this.#records.renameSnapshot(snapshot.id, to));
    });
    this.#publish("instance-snapshot-renamed", record.name, to);
  }

  expire(record: InstanceRecord, name: string, expiresAt: string | undefined): void {
    this.#records.expireSnapshot(this.get(record, name).id, expiresAt);
    this.#publish("instance-snapshot-updated", record.name, name);
  }

  /** Restores content and settings of a stopped instance; the keys that identify the instance are kept. */
  async restore(record: InstanceRecord, name: string, operation: Operation): Promise<void> {
    const snapshot = this.#records.findSnapshot(record, name);
    if (!snapshot) throw new LidoError("not_found", `Snapshot ${record.name}/${name} does not exist`);
    const pool = this.#rootfs.poolOf(record);
    const facet = await this.#ready(pool);
    const { config, devices, profiles } = record;
    const payload: SnapshotIntent = { name: record.name, pool, snapshot: name };
    const volume = volumeOf(record.name);
    const stored = storedConfig(this.#services.database, pool, volume);
    const lost = await facet.lostBy?.({ ...volume, snapshot: name, ...(stored ? { config: stored } : {}) }) ?? [];
    const unknown = this.#services.volumes.look.unknownOf(pool, volume, lost);
    if (unknown.length > 0) refuseLost(pool, volume, unknown, "restore");
    operation.signal.throwIfAborted();
    await using intent = this.#openRestore({ ...payload, before: { config, devices, profiles }, lost });
    // Settings first: they can be rolled back if the content cannot be restored.
    const settings = this.#settingsOf(snapshot, record, pool);
    this.#records.update(record.name, settings);
    const total = async () =>
      this.#services.pools.driver(pool).mountsVolumes
        ? undefined
        : await this.#services.volumes.usedBytes(pool, "container", record.name, name);
    await this.#restore(payload, lost, watch(operation, record.name, total));
    operation.seal();
    await using cleaning = intent.commit(() => {
      this.#deleteRecords(record, lost);
      return this.#openCleaning(payload);
    });
    for (const one of lost) this.#publish("instance-snapshot-deleted", record.name, one);
    const gone = snapshot.profiles.filter((one) => !settings.profiles.includes(one));
    if (gone.length > 0) {
      operation.note(`Profiles that are not there any more were left out: ${gone.map((one) => `"${one}"`).join(", ")}`);
    }
    if (this.#rootSize(record) !== this.#rootSize(settings)) await this.#limit(record.name, pool);
    await this.#afterRestore(pool, record.name);
    cleaning.commit(() => {});
    this.#services.events.lifecycle("instance-restored", `/1.0/instances/${record.name}`, { snapshot: name });
  }

  async #restore(
    { name, pool, snapshot }: SnapshotIntent,
    lost: readonly string[],
    options: WatchOptions = {},
  ): Promise<void> {
    const volume = volumeOf(name);
    const facet = this.#facet(pool);
    const restore = () => facet.restore({ ...volume, snapshot }, lost, options);
    const alone = () => this.#services.mounts.alone(pool, volume, restore);
    await this.#services.volumes.locks.hold([volumeLock(pool, name)], alone);
  }

  /** Takes the volume's lock: the search for leftovers regards those of an unlocked volume as left by an interrupted operation. */
  async #afterRestore(pool: string, name: string): Promise<void> {
    const work = () => this.#facet(pool).afterRestore(volumeOf(name));
    await this.#services.volumes.locks.hold([volumeLock(pool, name)], work);
  }

  /** A snapshot's settings for its instance: the instance's identity and the pool of its root disk are kept, deleted profiles are left out. */
  #settingsOf(snapshot: SnapshotRecord, record: InstanceRecord, pool: string): SnapshotSettings {
    const kept = ["volatile.idmap.base", "volatile.idmap.next", "volatile.idmap.current", "volatile.last_state.power"];
    const profiles = this.#records.knownProfiles(snapshot.profiles);
    const { devices } = this.#records.expand({ ...snapshot, profiles });
    return {
      config: merge(snapshot.config, Object.fromEntries(kept.map((key) => [key, record.config[key]]))),
      devices: rootOn(pool, snapshot.devices, devices, this.#records.expand(record).devices),
      profiles,
    };
  }

  #rootSize(settings: SnapshotSettings): string | undefined {
    return Object.values(this.#records.expand(settings).devices).find(isRoot)?.size;
  }

  /** Sets the root volume's limit to that of the settings. A volume whose filesystem cannot shrink keeps its limit. */
  async #limit(name: string, pool: string): Promise<void> {
    const record = this.#records.find(name);
    const { quota } = this.#services.pools.driver(pool).facets;
    if (!record || !quota) return;
    const size = this.#rootSize(record), volume = volumeOf(name);
    const set = () => quota.set(volume, size ? parseSizeBytes(size) : undefined, { evenBelowUse: true });
    await this.#services.mounts.alone(pool, volume, set).catch((error) => {
      if (!(error instanceof LidoError)) throw error;
      this.#services.log.warn(
        { instance: name, error: error.message },
        "a restored instance keeps its root disk's limit",
      );
    });
  }

  #deleteRecords(record: InstanceRecord, snapshots: readonly string[]): void {
    for (const one of snapshots) this.#records.deleteSnapshot(record, one);
  }

  /** For use before work begins: waits until the pool's filesystem has answered. */
  async #ready(pool: string): Promise<Snapshots> {
    await this.#services.pools.ready(pool);
    return this.#facet(pool);
  }

  #facet(pool: string): Snapshots {
    const driver = this.#services.pools.driver(pool);
    if (!driver.facets.snapshot) {
      throw new LidoError("not_implemented", driver.absent.snapshot ?? `Storage pool "${pool}" has no snapshots`);
    }
    return driver.facets.snapshot;
  }

  #publish(action: LifecycleAction, instance: string, snapshot: string): void {
    this.#services.events.lifecycle(action, `/1.0/instances/${instance}/snapshots/${snapshot}`);
  }
}

/** @returns As ISO 8601; undefined for never, which Go writes as its zero time. @throws {LidoError} bad_request. */
export function expiryOf(text: string | null | undefined): string | undefined {
  if (!text || text.startsWith("0001-01-01")) return undefined;
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) {
    throw new LidoError("bad_request", `Invalid expiry date "${text}"`);
  }
  return time.toISOString();
}
