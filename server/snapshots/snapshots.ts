import { LidoError, notFound } from "../../api/errors.ts";
import type { Config, StorageVolumeSnapshot } from "../../api/types.ts";
import { AlreadyThere, type Volume } from "../../drivers/storage/driver.ts";
import { fromDisk } from "../../drivers/storage/layout.ts";
import type { OpenIntent } from "../journal/journal.ts";
import type { Operation, OperationOptions } from "../operations/operations.ts";
import { watch } from "../operations/progress.ts";
import type { Row } from "../state/database.ts";
import { refuseLost } from "../volumes/disk_look.ts";
import { checkName } from "../store/names.ts";
import { expiryAfter } from "../schedules/schedule.ts";
import { nextSnapshotName } from "../schedules/snapshot_pattern.ts";
import { endRestore } from "../volumes/restore.ts";
import { insertSnapshot, onDisk, setContentMap, snapshotRowsOfInstance, viewSnapshot } from "../store/rows.ts";
import { lockName, url, type Volumes, type VolumesOptions } from "../volumes/volumes.ts";

interface SnapshotIntent {
  readonly pool: string;
  /** Name of the volume on disk. */
  readonly name: string;
  readonly snapshot: string;
}

interface RestoreIntent extends SnapshotIntent {
  /** Names of the later snapshots that the restore deletes. */
  readonly lost: readonly string[];
  /** Whether the volume has the snapshot's content now; in memory only, not in the journal. */
  isRestored?: true;
}

interface SnapshotRenameIntent extends SnapshotIntent {
  readonly to: string;
}

/** Snapshots of custom volumes. */
export class VolumeSnapshots {
  readonly #options: VolumesOptions;
  readonly #volumes: Volumes;
  readonly #creating: OpenIntent<SnapshotIntent>;
  readonly #deleting: OpenIntent<SnapshotIntent>;
  readonly #renaming: OpenIntent<SnapshotRenameIntent>;
  readonly #restoring: OpenIntent<RestoreIntent>;

  constructor(options: VolumesOptions, volumes: Volumes) {
    this.#options = options;
    this.#volumes = volumes;
    const takeAway = async ({ pool, name, snapshot }: SnapshotIntent) => {
      if (!options.pools.names().includes(pool)) return;
      await options.pools.driver(pool).facets.snapshot?.delete({ type: "custom", name, snapshot });
      options.database.run(
        `DELETE FROM storage_volume_snapshots WHERE name = ? AND volume_id IN (
           SELECT storage_volumes.id FROM storage_volumes JOIN storage_pools ON storage_pools.id = pool_id
           WHERE storage_pools.name = ? AND type = 'custom' AND storage_volumes.name = ?)`,
        snapshot,
        pool,
        name.replace(/^default_/, ""),
      );
    };
    this.#creating = options.journal.kind<SnapshotIntent>("volume-snapshot.create", takeAway);
    this.#deleting = options.journal.kind<SnapshotIntent>("volume-snapshot.delete", takeAway);
    this.#renaming = options.journal.kind<SnapshotRenameIntent>(
      "volume-snapshot.rename",
      async ({ pool, name, snapshot, to }) => {
        if (!options.pools.names().includes(pool)) return;
        const facet = options.pools.driver(pool).facets.snapshot;
        const present = await facet?.list({ type: "custom", name }) ?? [];
        // Rename back: the row still has the old name. If both exist, none was renamed.
        if (present.includes(to) && !present.includes(snapshot)) {
          await facet!.rename({ type: "custom", name, snapshot: to }, snapshot);
        }
      },
    );
    // The content changes in one step; `afterRestore` cleans up beside it.
    this.#restoring = options.journal.kind<RestoreIntent>(
      "volume-snapshot.restore",
      async ({ pool, name, snapshot, lost = [], isRestored }, cause) => {
        if (!options.pools.names().includes(pool)) return;
        const volume = { type: "custom", name } as const;
        const facet = options.pools.driver(pool).facets.snapshot;
        if (!facet) return;
        const ended = await endRestore(facet, { ...volume, snapshot }, lost);
        // A kill may have been before or after the content changed, so the files' id map is unknown: restore again.
        const again = !ended && cause === "crashed" && this.#changesMap(pool, name, snapshot);
        if (again) await options.mounts.alone(pool, volume, () => facet.restore({ ...volume, snapshot }, []));
        if (ended || again || isRestored) {
          options.database.transaction(() => this.#restored(pool, name, snapshot, lost));
        }
        await facet.afterRestore(volume);
      },
    );
  }

  /** Snapshots of a volume; those of an instance are created and changed through the instance. */
  list(pool: string, type: string, volume: string): StorageVolumeSnapshot[] {
    const row = this.#volumes.row(pool, type, volume);
    const rows = type === "container"
      ? snapshotRowsOfInstance(this.#options.database, volume)
      : this.#volumes.snapshotRows(Number(row.id));
    return rows.map(viewSnapshot);
  }

  get(pool: string, type: string, volume: string, snapshot: string): StorageVolumeSnapshot {
    const found = this.list(pool, type, volume).find(({ name }) => name === snapshot);
    if (!found) throw notFound("Storage volume snapshot", snapshot, `of volume "${volume}" in pool "${pool}"`);
    return found;
  }

  etag(pool: string, type: string, volume: string, snapshot: string): unknown {
    const { description, expires_at } = this.get(pool, type, volume, snapshot);
    return [snapshot, description, expires_at];
  }

  /** Checks that a snapshot can be created. @returns When it expires; null means never. @throws {LidoError} bad_request or conflict. */
  checkNew(pool: string, volume: string, snapshot: string, expiresAt: string | null | undefined): string | null {
    const row = this.#volumes.row(pool, "custom", volume);
    this.#checkName(row, snapshot);
    return expiresAt ? checkTime(expiresAt) : defaultExpiry(JSON.parse(String(row.config)), false);
  }

  /** Inserts the row of a snapshot, with its volume's settings. */
  insert(pool: string, volume: string, snapshot: string, expiresAt: string | null): void {
    const row = this.#volumes.row(pool, "custom", volume);
    insertSnapshot(this.#options.database, Number(row.id), {
      name: snapshot,
      description: row.description!,
      created_at: new Date().toISOString(),
      expires_at: expiresAt,
      config: row.config!,
    });
  }

  /** @param post.name Made from `snapshots.pattern` when empty. @param post.expires_at By `snapshots.expiry` when absent or null; Go's zero time is
   * never. @param isScheduled Whether the schedule creates it: then `snapshots.expiry.manual` does not apply. */
  create(
    pool: string,
    volume: string,
    post: { name: string; expires_at?: string | null | undefined },
    isScheduled = false,
  ): Operation {
    const row = this.#volumes.row(pool, "custom", volume);
    if (post.name) this.#checkName(row, post.name);
    const facet = this.#facet(pool);
    const expiresAt = post.expires_at
      ? checkTime(post.expires_at)
      : defaultExpiry(JSON.parse(String(row.config)), isScheduled);
    return this.#start("Creating volume snapshot", pool, volume, async (operation) => {
      const row = this.#volumes.row(pool, "custom", volume);
      const name = post.name || await this.#nextName(pool, row);
      this.#checkName(row, name);
      const target = { ...onDisk("custom", volume), snapshot: name };
      await this.#volumes.look.refuseTakenSnapshot(pool, target);
      await using open = this.#creating({ pool, name: target.name, snapshot: name });
      const total = () => this.#volumes.usedBytes(pool, "custom", volume);
      await facet.create(target, watch(operation, name, total)).catch((error) => {
        if (error instanceof AlreadyThere) open.commit(() => {});
        throw error;
      });
      operation.sealUnlessCancelled();
      open.commit(() =>
        insertSnapshot(this.#options.database, Number(row.id), {
          name,
          description: row.description!,
          created_at: new Date().toISOString(),
          expires_at: expiresAt,
          config: row.config!,
        })
      );
      this.#options.events.lifecycle(
        "storage-volume-snapshot-created",
        `${url(pool, "custom", volume)}/snapshots/${name}`,
      );
    }, { cancel: () => {} });
  }

  delete(pool: string, volume: string, snapshot: string): Operation {
    this.#row(pool, volume, snapshot);
    const target = { ...onDisk("custom", volume), snapshot };
    return this.#start("Deleting volume snapshot", pool, volume, async () => {
      const row = this.#row(pool, volume, snapshot);
      await using open = this.#deleting({ pool, name: target.name, snapshot });
      await this.#options.mounts.alone(pool, target, () => this.#facet(pool).delete(target));
      open.commit(() => this.#options.database.run("DELETE FROM storage_volume_snapshots WHERE id = ?", row.id!));
      this.#options.events.lifecycle(
        "storage-volume-snapshot-deleted",
        `${url(pool, "custom", volume)}/snapshots/${snapshot}`,
      );
    });
  }

  rename(pool: string, volume: string, snapshot: string, to: string): Operation {
    const row = this.#row(pool, volume, snapshot);
    checkName("Storage volume snapshot", to);
    if (this.#find(Number(row.volume_id), to)) throw new LidoError("conflict", `Snapshot "${to}" already in use`);
    const target = { ...onDisk("custom", volume), snapshot };
    return this.#start("Renaming volume snapshot", pool, volume, async () => {
      const row = this.#row(pool, volume, snapshot);
      if (this.#find(Number(row.volume_id), to)) throw new LidoError("conflict", `Snapshot "${to}" already in use`);
      await this.#volumes.look.refuseTakenSnapshot(pool, { ...target, snapshot: to });
      await using open = this.#renaming({ pool, name: target.name, snapshot, to });
      await this.#options.mounts.alone(pool, target, () => this.#facet(pool).rename(target, to)).catch((error) => {
        if (error instanceof AlreadyThere) open.commit(() => {});
        throw error;
      });
      open.commit(() =>
        this.#options.database.run("UPDATE storage_volume_snapshots SET name = ? WHERE id = ?", to, row.id!)
      );
      this.#options.events.lifecycle(
        "storage-volume-snapshot-renamed",
        `${url(pool, "custom", volume)}/snapshots/${to}`,
      );
    });
  }

  update(
    pool: string,
    volume: string,
    snapshot: string,
    put: { description?: string | undefined; expires_at?: string | null | undefined },
  ): void {
    const row = this.#row(pool, volume, snapshot);
    this.#options.database.run(
      "UPDATE storage_volume_snapshots SET description = ?, expires_at = ? WHERE id = ?",
      put.description ?? String(row.description),
      put.expires_at === undefined ? row.expires_at! : put.expires_at ? checkTime(put.expires_at) : null,
      row.id!,
    );
  }

  /** Restores a volume to one of its snapshots. @throws {LidoError} not_found; bad_request when a running instance uses the volume. */
  restore(pool: string, volume: string, snapshot: string): Operation {
    const check = (): Volume => {
      const row = this.#volumes.row(pool, "custom", volume);
      if (!this.#find(Number(row.id), snapshot)) {
        throw notFound("Snapshot", snapshot, `of volume "${volume}" in pool "${pool}"`);
      }
      this.#volumes.refuseRunning(pool, volume, "Cannot restore custom volume used by running instances");
      return { ...this.#volumes.volume(row), snapshot };
    };
    check();
    return this.#start("Restoring volume snapshot", pool, volume, async (operation) => {
      // An instance may have been started, or the snapshot deleted, while the operation waited for its turn.
      const target = check();
      const facet = this.#facet(pool);
      const lost = await facet.lostBy?.(target) ?? [];
      const unknown = this.#volumes.look.unknownOf(pool, target, lost);
      if (unknown.length > 0) refuseLost(pool, target, unknown, "restore");
      const intent: RestoreIntent = { pool, name: target.name, snapshot, lost };
      await using open = this.#restoring(intent);
      await this.#options.mounts.alone(pool, onDisk("custom", volume), async () => {
        // Counting could mount the volume, which must stay unmounted now. Drivers that mount volumes know the total themselves.
        const total = async () =>
          this.#options.pools.driver(pool).mountsVolumes
            ? undefined
            : await this.#volumes.usedBytes(pool, "custom", volume, snapshot);
        await facet.restore(target, lost, watch(operation, volume, total));
        intent.isRestored = true;
        operation.seal();
        await facet.afterRestore(onDisk("custom", volume));
      });
      open.commit(() => this.#restored(pool, target.name, snapshot, lost));
      for (const one of lost) {
        const path = `${url(pool, "custom", volume)}/snapshots/${one}`;
        this.#options.events.lifecycle("storage-volume-snapshot-deleted", path);
      }
      this.#options.events.lifecycle("storage-volume-restored", url(pool, "custom", volume), { snapshot });
    }, { cancel: () => {} });
  }

  /** Updates the rows after a restore: the id map of the volume's files, and the deleted later snapshots; within a transaction.
   * @param name Name of the volume on disk. */
  #restored(pool: string, name: string, snapshot: string, lost: readonly string[]): void {
    const { database } = this.#options;
    const row = this.#volumes.row(pool, "custom", fromDisk({ type: "custom", name }));
    setContentMap(database, Number(row.id), mapOf(this.#find(Number(row.id), snapshot)));
    for (const one of lost) {
      database.run("DELETE FROM storage_volume_snapshots WHERE volume_id = ? AND name = ?", row.id!, one);
    }
  }

  /** Whether the files of a snapshot have another id map than those of its volume. @param name Name of the volume on disk. */
  #changesMap(pool: string, name: string, snapshot: string): boolean {
    const row = this.#volumes.row(pool, "custom", fromDisk({ type: "custom", name }));
    return mapOf(row) !== mapOf(this.#find(Number(row.id), snapshot));
  }

  /** @param options.cancel If given, `run` seals the operation before it commits. */
  #start(
    description: string,
    pool: string,
    volume: string,
    run: (operation: Operation) => Promise<void>,
    options: Pick<OperationOptions, "cancel"> = {},
  ): Operation {
    const held = [lockName(pool, onDisk("custom", volume))];
    return this.#options.operations.start({
      description,
      resources: { storage_volumes: [url(pool, "custom", volume)] },
      ...options,
      run: (operation) =>
        this.#volumes.locks.hold(
          held,
          () => this.#options.pools.ready(pool).then(() => run(operation)),
          operation.signal,
        ),
    });
  }

  #facet(pool: string) {
    const driver = this.#options.pools.driver(pool);
    if (!driver.facets.snapshot) throw new LidoError("bad_request", `Cannot make snapshots: ${driver.absent.snapshot}`);
    return driver.facets.snapshot;
  }

  #find(volumeId: number, name: string): Row | undefined {
    return this.#options.database.get(
      "SELECT * FROM storage_volume_snapshots WHERE volume_id = ? AND name = ?",
      volumeId,
      name,
    );
  }

  #row(pool: string, volume: string, snapshot: string): Row {
    const row = this.#find(Number(this.#volumes.row(pool, "custom", volume).id), snapshot);
    if (!row) throw notFound("Storage volume snapshot", snapshot, `of volume "${volume}" in pool "${pool}"`);
    return row;
  }

  /** @throws {LidoError} bad_request or conflict. */
  #checkName(row: Row, name: string): void {
    checkName("Storage volume snapshot", name);
    if (this.#find(Number(row.id), name)) throw new LidoError("conflict", `Snapshot "${name}" already in use`);
  }

  /** Name for a new snapshot that is neither known nor on disk. */
  async #nextName(pool: string, row: Row): Promise<string> {
    const pattern = JSON.parse(String(row.config))["snapshots.pattern"] || "snap%d";
    const known = this.#volumes.snapshotRows(Number(row.id)).map(({ name }) => String(name));
    const present = await this.#facet(pool).list(onDisk("custom", String(row.name)));
    return nextSnapshotName(pattern, [...known, ...present], new Date());
  }
}

/** @param row Of a volume or a snapshot. */
function mapOf(row: Row | undefined): string | undefined {
  return row && (JSON.parse(String(row.config)) as Config)["volatile.idmap.last"];
}

function defaultExpiry(config: Config, isScheduled: boolean): string | null {
  const manual = isScheduled ? undefined : config["snapshots.expiry.manual"];
  return expiryAfter(manual ?? config["snapshots.expiry"] ?? "", new Date())?.toISOString() ?? null;
}

export function checkTime(text: string): string | null {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) throw new LidoError("bad_request", `Invalid time "${text}": ISO 8601 is allowed`);
  // Go's zero time means never.
  return time.getUTCFullYear() < 1970 ? null : time.toISOString();
}
