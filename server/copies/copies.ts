import { LidoError, notFound } from "../../api/errors.ts";
import type { Config, StorageVolumesPost } from "../../api/types.ts";
import type { Operation } from "../operations/operations.ts";
import { watch } from "../operations/progress.ts";
import type { Row } from "../state/database.ts";
import { carriedOver, sizeOf } from "../config/storage.ts";
import { copyVolume, planCopy } from "../volumes/planner.ts";
import { VolumeRefresh } from "./refresh.ts";
import { onDisk } from "../store/rows.ts";
import { followVolume } from "../store/usage.ts";
import { lockName, url, usedByRunning, type Volumes, type VolumesOptions } from "../volumes/volumes.ts";

interface Source {
  readonly pool: string;
  readonly row: Row;
  /** The snapshot to copy from; absent means the volume's present content. */
  readonly snapshot?: Row;
  /** Whether the snapshots are copied, too. */
  readonly withSnapshots: boolean;
}

/** Copies and moves of custom volumes, within a pool and between pools and drivers. */
export class VolumeCopies {
  readonly #options: VolumesOptions;
  readonly #volumes: Volumes;
  readonly #refresh: VolumeRefresh;

  constructor(options: VolumesOptions, volumes: Volumes) {
    this.#options = options;
    this.#volumes = volumes;
    this.#refresh = new VolumeRefresh(options, volumes);
  }

  /** Copies a custom volume: with its snapshots unless `volume_only`, and without for a source "volume/snapshot". With `refresh`, an existing target
   * is brought up to date with its source. */
  copy(pool: string, post: StorageVolumesPost): Operation {
    const sourcePool = post.source.pool || pool;
    const [name = "", snapshotName] = post.source.name.split(/\/(.*)/s);
    const row = this.#volumes.row(sourcePool, "custom", name);
    const snapshot = snapshotName === undefined
      ? undefined
      : this.#volumes.snapshotRows(Number(row.id)).find((one) => one.name === snapshotName);
    if (snapshotName !== undefined && !snapshot) {
      throw notFound("Storage volume snapshot", snapshotName, `of volume "${name}" in pool "${sourcePool}"`);
    }
    if (post.source.refresh && this.#volumes.find(pool, onDisk("custom", post.name))) {
      if (!snapshot) return this.#refresh.start(pool, post);
      throw new LidoError("bad_request", `Cannot refresh volume "${post.name}" from a snapshot: only from a volume`);
    }
    const source: Source = {
      pool: sourcePool,
      row,
      ...(snapshot ? { snapshot } : {}),
      withSnapshots: !snapshot && !post.source.volume_only,
    };
    return this.#start("Copying storage volume", source, pool, post, false);
  }

  /** Moves a volume to another pool. One transaction inserts the target's row and deletes the source's. */
  move(pool: string, name: string, toPool: string, to: string): Operation {
    const row = this.#volumes.row(pool, "custom", name);
    this.#volumes.refuseRunning(pool, name, usedByRunning);
    const post: StorageVolumesPost = {
      name: to,
      type: "custom",
      content_type: "filesystem",
      description: String(row.description),
      config: {},
      source: { type: "copy", name, pool, project: "", volume_only: false, refresh: false },
    };
    return this.#start("Moving storage volume", { pool, row, withSnapshots: true }, toPool, post, true);
  }

  #start(
    description: string,
    source: Source,
    pool: string,
    post: StorageVolumesPost,
    isMove: boolean,
  ): Operation {
    const { name } = post;
    const sourceName = String(source.row.name);
    const origin = source.snapshot ?? source.row;
    const { pools } = this.#options;
    // LXD's client sends the source's settings as if they were requested.
    const asked = { ...inherited(origin), ...post.config };
    const carried = carriedOver(asked, pools.kindOf(source.pool), pools.kindOf(pool), pools.driver(pool));
    const config = this.#volumes.checkNew(pool, { ...post, config: carried });
    const sourceVolume = this.#volumes.volume(source.row);
    return this.#options.operations.start({
      description,
      resources: { storage_volumes: [url(source.pool, "custom", sourceName)] },
      cancel: () => {},
      run: async (operation) => {
        await this.#volumes.make(
          pool,
          { ...onDisk("custom", name), config },
          { description: post.description || String(origin.description), config },
          async (driver, volume) => {
            // The volume may have been attached while the operation waited for its turn.
            if (isMove) {
              this.#volumes.refuseRunning(source.pool, sourceName, usedByRunning);
              await this.#volumes.look.refuseUnknownSnapshots(source.pool, sourceVolume, "move");
            }
            const from = {
              pool: source.pool,
              driver: this.#options.pools.driver(source.pool),
              volume: source.snapshot ? { ...sourceVolume, snapshot: String(source.snapshot.name) } : sourceVolume,
            };
            const place = { pool, driver, volume };
            const snapshots = source.withSnapshots ? this.#volumes.snapshotRows(Number(source.row.id)) : [];
            const plan = planCopy(from, place, snapshots.length > 0);
            operation.update({ method: plan.method, reason: plan.reason });
            const sizeBytes = sizeOf(config);
            await copyVolume(this.#options, from, place, plan, {
              snapshots: snapshots.map((row) => String(row.name)),
              ...watch(
                operation,
                name,
                () => this.#volumes.copiedBytes(source.pool, from.volume, snapshots.map((row) => String(row.name))),
              ),
              ...(sizeBytes === undefined ? {} : { sizeBytes }),
            });
            operation.sealUnlessCancelled();
            return (id) => {
              this.#volumes.insertSnapshots(id, snapshots);
              if (!isMove) return;
              followVolume(this.#options.database, { pool: source.pool, name: sourceName }, { pool, name });
              return this.#volumes.deleteAfterCommit(source.pool, sourceVolume);
            };
          },
          { alsoHeld: [lockName(source.pool, sourceVolume)], signal: operation.signal },
        );
        const { events } = this.#options;
        events.lifecycle("storage-volume-created", url(pool, "custom", name), { type: "custom" });
        if (isMove) {
          events.lifecycle("storage-volume-deleted", url(source.pool, "custom", sourceName), { type: "custom" });
        }
      },
    });
  }
}

/** The settings that a copy has of its source: all but a planned id map (`volatile.idmap.next`), which its files do not have. */
function inherited(row: Row): Config {
  const config: Config = JSON.parse(String(row.config));
  return Object.fromEntries(Object.entries(config).filter(([key]) => !key.startsWith("volatile.idmap.next")));
}
