import { randomUUID } from "node:crypto";
import { LidoError } from "../../api/errors.ts";
import type { StorageVolumesPost } from "../../api/types.ts";
import type { Volume } from "../../drivers/storage/driver.ts";
import type { OpenIntent } from "../journal/journal.ts";
import type { Operation } from "../operations/operations.ts";
import { watch } from "../operations/progress.ts";
import type { Row } from "../state/database.ts";
import { sizeOf } from "../config/storage.ts";
import { copyVolume, planCopy } from "../volumes/planner.ts";
import { onDisk, setContentMap } from "../store/rows.ts";
import { lockName, url, type Volumes, type VolumesOptions } from "../volumes/volumes.ts";

/** How an existing copy is brought up to date. A fresh copy is made beside it, under a name that no user can give, sharing blocks where the drivers
 * can; then the existing volume is renamed to its "old" name, and the fresh one to the volume's name. So once a volume of the old name exists the
 * fresh one is complete, and an interrupted refresh is completed; before that, it is rolled back. */

/** LXD's text. */
const usedByRunning = "Cannot refresh custom volume used by running instances";

interface RefreshIntent {
  readonly pool: string;
  readonly type: "custom";
  /** Name on disk, like `fresh` and `old`. */
  readonly name: string;
  /** Names of the fresh copy until it is in place, and of the old volume from then on. */
  readonly fresh: string;
  readonly old: string;
  /** The id map of the new files: the source's `volatile.idmap.last`. */
  readonly idmap: string | null;
  /** Rows of the snapshots that the volume gets; null keeps its own. */
  readonly snapshots: readonly Row[] | null;
}

export class VolumeRefresh {
  readonly #options: VolumesOptions;
  readonly #volumes: Volumes;
  readonly #refreshing: OpenIntent<RefreshIntent>;

  constructor(options: VolumesOptions, volumes: Volumes) {
    this.#options = options;
    this.#volumes = volumes;
    this.#refreshing = options.journal.kind<RefreshIntent>(
      "volume.refresh",
      (intent) => this.#settle(intent),
    );
  }

  /** Brings a volume up to date with its source: content, snapshots, and the id map of its files. It keeps its settings, description and limit, and
   * with `volume_only` its snapshots. @throws {LidoError} When a running instance uses the volume. */
  start(pool: string, post: StorageVolumesPost): Operation {
    const { name, source } = post;
    const sourcePool = source.pool || pool;
    this.#volumes.row(sourcePool, "custom", source.name);
    if (sourcePool === pool && source.name === name) {
      throw new LidoError("bad_request", `Cannot refresh volume "${name}": it is its own source`);
    }
    this.#volumes.refuseRunning(pool, name, usedByRunning);
    return this.#options.operations.start({
      description: "Refreshing storage volume",
      resources: { storage_volumes: [url(pool, "custom", name), url(sourcePool, "custom", source.name)] },
      cancel: () => {},
      run: async (operation) => {
        const id = randomUUID().slice(0, 8);
        const [fresh, old] = [onDisk("custom", `.new.${id}`), onDisk("custom", `.old.${id}`)];
        const held = [onDisk("custom", name), fresh, old].map((volume) => lockName(pool, volume));
        await this.#volumes.locks.hold(
          [...held, lockName(sourcePool, onDisk("custom", source.name))],
          () => this.#refresh(operation, pool, post, fresh, old),
          operation.signal,
        );
        this.#options.events.lifecycle("storage-volume-updated", url(pool, "custom", name), { type: "custom" });
      },
    });
  }

  async #refresh(operation: Operation, pool: string, post: StorageVolumesPost, fresh: Volume, old: Volume) {
    const { pools, mounts } = this.#options;
    const { source, name } = post;
    const sourcePool = source.pool || pool;
    await Promise.all([pools.ready(pool), pools.ready(sourcePool)]);
    const row = this.#volumes.row(pool, "custom", name),
      sourceRow = this.#volumes.row(sourcePool, "custom", source.name);
    // An instance may have been started while the operation waited for its turn.
    this.#volumes.refuseRunning(pool, name, usedByRunning);
    const volume = this.#volumes.volume(row), driver = pools.driver(pool);
    const from = { pool: sourcePool, driver: pools.driver(sourcePool), volume: this.#volumes.volume(sourceRow) };
    const target = { pool, driver, volume: { ...fresh, config: volume.config! } };
    const own = this.#volumes.snapshotRows(Number(row.id));
    const snapshots = source.volume_only ? [] : this.#volumes.snapshotRows(Number(sourceRow.id));
    const intent: RefreshIntent = {
      pool,
      type: "custom",
      name: volume.name,
      fresh: fresh.name,
      old: old.name,
      idmap: from.volume.config?.["volatile.idmap.last"] ?? null,
      snapshots: source.volume_only ? null : snapshots.map((snapshot) => sameSnapshot(own, snapshot) ?? snapshot),
    };
    const plan = planCopy(from, target, snapshots.length > 0);
    operation.update({ method: plan.method, reason: plan.reason });
    await this.#options.journal.settleBefore("volume.refresh", intent);
    // The old volume will be deleted, with its snapshots.
    await this.#volumes.look.refuseUnknownSnapshots(pool, volume, "refresh");
    const sizeBytes = sizeOf(volume.config!) ??
      (pools.kindOf(pool).isBlock ? await driver.facets.quota!.get(volume) : undefined);
    await using open = this.#refreshing(intent);
    await copyVolume(this.#options, from, target, plan, {
      snapshots: snapshots.map((one) => String(one.name)),
      ...(source.volume_only && own.length > 0
        ? { kept: { volume, snapshots: own.map((one) => String(one.name)) } }
        : {}),
      ...watch(
        operation,
        name,
        () => this.#volumes.copiedBytes(sourcePool, from.volume, snapshots.map((one) => String(one.name))),
      ),
      ...(sizeBytes === undefined ? {} : { sizeBytes }),
    });
    const rest = await mounts.alone(pool, onDisk("custom", name), async () => {
      // An instance may have been started while the copy was made.
      this.#volumes.refuseRunning(pool, name, usedByRunning);
      // No cancelling once the renames begin: they are not undone.
      operation.sealUnlessCancelled();
      await driver.rename(volume, old.name);
      await driver.rename(fresh, volume.name);
      return open.commit(() => this.#inPlace(intent));
    });
    await rest();
  }

  /** Updates the volume's rows; within a transaction. @returns A function that deletes the old volume on disk. */
  #inPlace({ pool, name, old, idmap, snapshots }: RefreshIntent): () => Promise<void> {
    const row = this.#volumes.row(pool, "custom", name.replace(/^default_/, ""));
    setContentMap(this.#options.database, Number(row.id), idmap ?? undefined);
    if (snapshots) {
      this.#options.database.run("DELETE FROM storage_volume_snapshots WHERE volume_id = ?", row.id!);
      this.#volumes.insertSnapshots(Number(row.id), snapshots);
    }
    return this.#volumes.deleteAfterCommit(pool, { type: "custom", name: old });
  }

  async #settle(intent: RefreshIntent): Promise<void> {
    const { pools, mounts, database } = this.#options;
    const { pool, name } = intent;
    // The pool may have been deleted, with all its volumes.
    if (!pools.names().includes(pool)) return;
    const driver = pools.driver(pool);
    const [volume, fresh, old] = [name, intent.fresh, intent.old].map((one): Volume => ({ type: "custom", name: one }));
    if (await driver.exists(old!)) {
      await mounts.alone(pool, volume!, () => driver.rename(fresh!, name));
      await database.transaction(() => this.#inPlace(intent))();
      return;
    }
    // The volume's snapshots may have been renamed already, since they are renamed before it: rename back.
    if (await driver.exists(volume!)) await mounts.alone(pool, volume!, () => driver.rename(old!, name));
    await mounts.alone(pool, fresh!, () => driver.delete(fresh!));
  }
}

/** @returns The copy's own row of a snapshot that it has already, so that its description and expiry are kept. */
function sameSnapshot(own: readonly Row[], snapshot: Row): Row | undefined {
  return own.find(({ name, created_at }) => name === snapshot.name && created_at === snapshot.created_at);
}
