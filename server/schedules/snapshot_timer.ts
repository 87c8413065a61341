import { messageOf } from "../../api/errors.ts";
import type { Config } from "../../api/types.ts";
import type { Events } from "../events/events.ts";
import { asDaemon } from "../log/client.ts";
import type { Operation } from "../operations/operations.ts";
import type { Database } from "../state/database.ts";
import { nextRun } from "./schedule.ts";

/** Longest sleep: timers have a limit, and after a suspend of the host or a change of its clock a task is late by at most this. */
const sleepMaxMs = 600_000;
/** A failed task is tried again after this. */
const retryMs = 600_000;
const watched = /^(storage-(volume|pool)|instance)-/;

export interface SnapshotTimerOptions {
  readonly database: Database;
  readonly events: Events;
  readonly log: { warn(context: object, message: string): void };
  /** The snapshot's name and expiry come from the volume's settings. */
  readonly snapshotVolume: (pool: string, volume: string) => Operation;
  readonly deleteVolumeSnapshot: (pool: string, volume: string, snapshot: string) => Operation;
  readonly deleteInstanceSnapshot: (instance: string, snapshot: string) => Operation;
}

interface Job {
  readonly at: Date;
  readonly what: string;
  readonly start: () => Operation;
}

/** Makes scheduled snapshots and deletes expired ones. It sleeps until the next task is due, and looks again when a volume, snapshot or instance has
 * changed. A running task is not started a second time, and a slow one delays only the tasks that were due at the same time. */
export class SnapshotTimer {
  readonly #options: SnapshotTimerOptions;
  /** The next run of each schedule is the first one after this. */
  #since = new Date();
  #timer: NodeJS.Timeout | undefined;
  #unsubscribe = () => {};
  #isStale = false;
  #isClosed = false;
  /** Tasks that are running, or wait for those that were due with them. */
  readonly #begun = new Set<string>();
  /** When each failed task is tried again, by `Date.now()`. */
  readonly #retryAt = new Map<string, number>();

  constructor(options: SnapshotTimerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#unsubscribe = this.#options.events.subscribe(["lifecycle"], ({ metadata }) => {
      if (!watched.test(String(metadata.action)) || this.#isStale) return;
      this.#isStale = true; // arm once for many events of one turn
      queueMicrotask(() => this.#arm());
    });
    this.#arm();
  }

  close(): void {
    this.#isClosed = true;
    this.#unsubscribe();
    clearTimeout(this.#timer);
  }

  /** The tasks that are due now or later and were not begun, the earliest first. */
  jobs(): Job[] {
    const all = [...this.#scheduled(), ...this.#expiring()];
    const names = new Set(all.map(({ what }) => what));
    for (const what of this.#retryAt.keys()) if (!names.has(what)) this.#retryAt.delete(what);
    const delayed = (job: Job) => ({
      ...job,
      at: new Date(Math.max(job.at.getTime(), this.#retryAt.get(job.what) ?? 0)),
    });
    return all.filter(({ what }) => !this.#begun.has(what)).map(delayed)
      .sort((left, right) => left.at.getTime() - right.at.getTime());
  }

  #arm(): void {
    this.#isStale = false;
    clearTimeout(this.#timer);
    if (this.#isClosed) return;
    const [next] = this.jobs();
    if (!next) return;
    const waitMs = Math.max(0, Math.min(next.at.getTime() - Date.now(), sleepMaxMs));
    this.#timer = asDaemon(() => setTimeout(() => void this.#run(), waitMs));
  }

  async #run(): Promise<void> {
    const now = new Date();
    const due = this.jobs().filter(({ at }) => at <= now);
    this.#since = now;
    for (const { what } of due) this.#begun.add(what);
    this.#arm();
    for (const { what, start } of due) {
      try {
        if (this.#isClosed) return;
        const operation = start();
        await operation.finished;
        const { err } = operation.view();
        if (err) throw new Error(err);
        this.#retryAt.delete(what);
      } catch (error) {
        this.#retryAt.set(what, Date.now() + retryMs);
        this.#options.log.warn({ what, error: messageOf(error) }, "a scheduled task failed");
      } finally {
        this.#begun.delete(what);
      }
    }
    this.#arm();
  }

  #scheduled(): Job[] {
    const { database, snapshotVolume } = this.#options;
    const rows = database.all(
      `SELECT storage_pools.name AS pool, storage_volumes.name AS name, storage_volumes.config AS config
       FROM storage_volumes JOIN storage_pools ON storage_pools.id = pool_id
       WHERE type = 'custom' AND storage_volumes.config LIKE '%"snapshots.schedule"%'`,
    );
    return rows.flatMap((row) => {
      const config = JSON.parse(String(row.config)) as Config;
      const at = nextRun(config["snapshots.schedule"] ?? "", this.#since);
      if (!at) return [];
      const pool = String(row.pool), name = String(row.name);
      return [{ at, what: `snapshot of ${pool}/${name}`, start: () => snapshotVolume(pool, name) }];
    });
  }

  #expiring(): Job[] {
    const { database, deleteVolumeSnapshot, deleteInstanceSnapshot } = this.#options;
    const volumes = database.all(
      `SELECT storage_pools.name AS pool, storage_volumes.name AS volume, storage_volume_snapshots.name AS name,
         storage_volume_snapshots.expires_at AS expires_at
       FROM storage_volume_snapshots JOIN storage_volumes ON storage_volumes.id = volume_id
       JOIN storage_pools ON storage_pools.id = pool_id WHERE storage_volume_snapshots.expires_at IS NOT NULL`,
    );
    const instances = database.all(
      `SELECT instances.name AS instance, instance_snapshots.name AS name, expires_at
       FROM instance_snapshots JOIN instances ON instances.id = instance_id WHERE expires_at IS NOT NULL`,
    );
    return [
      ...volumes.map(({ pool, volume, name, expires_at }) => ({
        at: new Date(String(expires_at)),
        what: `expiry of ${pool}/${volume}/${name}`,
        start: () => deleteVolumeSnapshot(String(pool), String(volume), String(name)),
      })),
      ...instances.map(({ instance, name, expires_at }) => ({
        at: new Date(String(expires_at)),
        what: `expiry of ${instance}/${name}`,
        start: () => deleteInstanceSnapshot(String(instance), String(name)),
      })),
    ];
  }
}
