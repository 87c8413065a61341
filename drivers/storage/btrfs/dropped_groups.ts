import { destroyQuotaGroups, needsRescan, startRescan } from "../../host/btrfs/quota.ts";

/** The kernel clears a deleted subvolume away in its own time, tells nobody, and keeps the quota group until then. */
const retryMs = 5_000;

/** Quota groups of subvolumes that were deleted: taken away as soon as the kernel lets them go. What is left when the process ends is taken away at
 * the next opening of the pool. When a deletion has made the kernel give up counting, it is told to count anew. */
export class DroppedGroups {
  readonly #pending = new Set<bigint>();
  #timer: NodeJS.Timeout | undefined;

  /** @param path In the filesystem. */
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
      // The pool is gone, or mounted no more.
    }
    this.#pending.clear();
    for (const id of left) this.#pending.add(id);
    if (left.length > 0) this.#timer = setTimeout(() => this.#try(path), retryMs).unref();
  }
}
