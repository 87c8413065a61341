import { type BigIntStats, statSync } from "node:fs";
import { showBytes } from "../../api/size.ts";
import type { Pool } from "../../drivers/storage/driver.ts";

/** What a pool is made of, as it was when it was opened. Somebody may unmount it, mount something over it, delete or cut its file: then nothing
 * may be written to what is at its place now. To look costs two calls of the kernel, so it is done before each use. */
export class Presence {
  readonly #root: string;
  readonly #file: string | undefined;
  readonly #rootWas: BigIntStats | undefined;
  readonly #fileWas: BigIntStats | undefined;

  constructor(pool: Pool) {
    this.#root = pool.root;
    this.#rootWas = look(pool.root);
    if (pool.config.source !== pool.diskFile) return;
    this.#file = pool.diskFile;
    this.#fileWas = look(pool.diskFile);
  }

  /** @returns Why what was opened is not there any more, in words for the user; undefined when it is. */
  absence(): string | undefined {
    if (this.#file !== undefined) {
      const file = look(this.#file);
      const rest = `what is in it is still at "${this.#root}" until that is unmounted`;
      if (!file) return `Its file "${this.#file}" was taken away; ${rest}`;
      if (!isSame(file, this.#fileWas)) return `Its file "${this.#file}" was replaced by another; ${rest}`;
      const before = this.#fileWas!.size;
      if (file.size < before) {
        return `Its file "${this.#file}" was cut from ${showBytes(before)} to ${showBytes(file.size)}`;
      }
    }
    const root = look(this.#root);
    if (!root) return `Its directory "${this.#root}" was taken away`;
    if (!isSame(root, this.#rootWas)) return `It is not mounted at "${this.#root}" any more, or something else is`;
    return undefined;
  }

  /** Whether something that is not it has its place, which must not be taken away for it. */
  isReplaced(): boolean {
    const file = this.#file === undefined ? undefined : look(this.#file), root = look(this.#root);
    return (file !== undefined && !isSame(file, this.#fileWas)) || (root !== undefined && !isSame(root, this.#rootWas));
  }
}

function look(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true });
  } catch {
    return undefined; // whatever the reason, it cannot be used
  }
}

function isSame(now: BigIntStats, before: BigIntStats | undefined): boolean {
  return now.dev === before?.dev && now.ino === before.ino;
}
