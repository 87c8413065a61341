import { randomBytes } from "node:crypto";
import { existsSync, rmSync, writeFileSync } from "node:fs";

/** Enough for a few hundred changes of the database, and for a start's lock and shared memory. */
const reserveBytes = 1 << 20;

/** A file that reserves space on the database's filesystem. When the filesystem is full, the file is deleted, so that deletions, which free space,
 * are still possible. */
export class Reserve {
  readonly #path: string;

  /** @param database Path of the database's file. */
  constructor(database: string) {
    this.#path = `${database}-reserve`;
  }

  isHeld(): boolean {
    return existsSync(this.#path);
  }

  /** Deletes the reserve. @returns Whether it existed. */
  release(): boolean {
    if (!this.isHeld()) return false;
    rmSync(this.#path, { force: true });
    return true;
  }

  /** Creates the reserve if it is missing. @returns Whether it exists now: without it, only deletions are allowed. */
  refill(): boolean {
    if (this.isHeld()) return true;
    try {
      // Random bytes: a filesystem that compresses would reserve no space for zeros.
      writeFileSync(this.#path, randomBytes(reserveBytes), { flag: "wx", mode: 0o600 });
      return true;
    } catch {
      rmSync(this.#path, { force: true });
      return false;
    }
  }
}
