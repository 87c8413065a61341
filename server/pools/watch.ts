import { randomUUID } from "node:crypto";
import { messageOf } from "../../api/errors.ts";
import type { Warning } from "../../api/types.ts";
import type { Driver } from "../../drivers/storage/driver.ts";
import type { Events } from "../events/events.ts";

/** A look costs some microseconds and no process; a pool that is written to at 100 MB/s fills by 1 GB between two looks. */
const lookEveryMs = 10_000;
const steps: readonly { percent: number; severity: Warning["severity"] }[] = [
  { percent: 80, severity: "low" },
  { percent: 90, severity: "moderate" },
  { percent: 95, severity: "high" },
];

export interface PoolWatchOptions {
  readonly pools: { open(): Driver[] };
  readonly events: Events;
  readonly log: { warn(context: object, message: string): void };
}

/** Warns when a pool passes 80, 90 and 95 % of a space that `resources` does not report (a thin pool's data and metadata): by an event at each
 * step, and by a warning in the list while it lasts. */
export class PoolWatch {
  readonly #options: PoolWatchOptions;
  /** By `pool/space`. */
  readonly #warnings = new Map<string, Warning & { readonly percent: number }>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: PoolWatchOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => void this.look(), lookEveryMs);
    this.#timer.unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  list(): Warning[] {
    return [...this.#warnings.values()].map(({ percent: _, ...warning }) => warning);
  }

  async look(): Promise<void> {
    const open = this.#options.pools.open();
    const seen = new Set<string>();
    for (const { pool, facets } of open) {
      try {
        for (const { of, used, total } of await facets.health?.fill?.() ?? []) {
          seen.add(`${pool.name}/${of}`);
          this.#note(pool.name, of, total === 0n ? 0 : Number(used * 1000n / total) / 10);
        }
      } catch (error) {
        this.#options.log.warn({ pool: pool.name, error: messageOf(error) }, "cannot tell how full a pool is");
      }
    }
    for (const key of this.#warnings.keys()) if (!seen.has(key)) this.#warnings.delete(key);
  }

  #note(pool: string, of: string, percent: number): void {
    const key = `${pool}/${of}`, before = this.#warnings.get(key);
    const step = steps.findLast((one) => percent >= one.percent);
    if (!step) return void this.#warnings.delete(key);
    const now = new Date().toISOString();
    const isHigher = step.percent > (before?.percent ?? 0);
    const message = `${percent} % of the ${of} of storage pool "${pool}" is used`;
    this.#warnings.set(key, {
      uuid: before?.uuid ?? randomUUID(),
      location: "none",
      project: "",
      type: "Storage pool is running full",
      severity: step.severity,
      status: "new",
      count: (before?.count ?? 0) + (isHigher ? 1 : 0),
      first_seen_at: before?.first_seen_at ?? now,
      last_seen_at: now,
      last_message: message,
      entity_url: `/1.0/storage-pools/${pool}`,
      percent: step.percent,
    });
    if (!isHigher) return;
    this.#options.log.warn({ pool, of, percent }, "a storage pool is running full");
    this.#options.events.lifecycle("storage-pool-filling", `/1.0/storage-pools/${pool}`, {
      of,
      percent: String(percent),
      threshold: String(step.percent),
    });
  }
}
