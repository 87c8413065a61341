import { destroyQuotaGroups, needsRescan, startRescan } from "../../host/btrfs/quota.ts";

/** The kernel cleans up a deleted subvolume in the background, notifies nobody, and keeps the quota group until then. */
const retryMs = 5_000;

/** Quota groups of deleted subvolumes: destroyed as soon as the kernel allows it; those left at the end of the process are destroyed when the pool
 * is opened again. When a deletion has made the kernel give up counting, a rescan is started. */
export class DroppedGroups {
  readonly #pending = new Set<bigint>();
  #timer: NodeJS.Timeout | undefined;

  /** @param path Any path in the filesystem. */
  drop(path: string, ids: readonly bigint[]): void {
    for (const id of ids) this.#pending.add(id);
    this.#try(path);
  }

  #try(path: string): void {
    clearTimeout(this.#timer);
    let left: bigint[] = [];
    try {
      left = destroyQuotaGroups(path, [...this.#pending]);
      if (needsRescan(path)) startRescan(path);
    } catch {
      // The pool was deleted or unmounted.
    }
    this.#pending.clear();
    for (const id of left) this.#pending.add(id);
    if (left.length > 0) this.#timer = setTimeout(() => this.#try(path), retryMs).unref();
  }
}
