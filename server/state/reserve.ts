import { randomBytes } from "node:crypto";
import { existsSync, rmSync, writeFileSync } from "node:fs";

/** What a few hundred changes of the database take, and what a start needs for its lock and shared memory. */
const reserveBytes = 1 << 20;

/** Space that is kept for the worst time: when the database's filesystem is full, a deletion must still be possible, for it makes room. A file
 * that holds the place, and is given up when it is needed. */
export class Reserve {
  readonly #path: string;

  /** @param database Path of its file. */
  constructor(database: string) {
    this.#path = `${database}-reserve`;
  }

  isHeld(): boolean {
    return existsSync(this.#path);
  }

  /** @returns Whether there was something to give up. */
  release(): boolean {
    if (!this.isHeld()) return false;
    rmSync(this.#path, { force: true });
    return true;
  }

  /** @returns Whether the place is held (again): without it there is no room for anything but deletions. */
  refill(): boolean {
    if (this.isHeld()) return true;
    try {
      // Not zeros: a filesystem that compresses would hold no place for them.
      writeFileSync(this.#path, randomBytes(reserveBytes), { flag: "wx", mode: 0o600 });
      return true;
    } catch {
      rmSync(this.#path, { force: true });
      return false;
    }
  }
}
