import { type BigIntStats, statSync } from "node:fs";
import { showBytes } from "../../api/size.ts";
import { mountAt } from "../../drivers/host/mounts/mounts.ts";
import type { Pool } from "../../drivers/storage/driver.ts";

/** What a pool is made of, as it was when it was opened. Somebody may unmount it, mount something over it, delete or cut its file: then nothing
 * may be written to what is at its place now. To look costs two calls of the kernel, so it is done before each use. */
export class PoolAvailability {
  readonly #root: string;
  readonly #file: string | undefined;
  readonly #rootWas: Identity;
  readonly #fileWas: BigIntStats | undefined;

  constructor(pool: Pool) {
    this.#root = pool.root;
    this.#rootWas = identify(pool.root);
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
    const root = identify(this.#root, this.#rootWas);
    if (root === undefined) return `Its directory "${this.#root}" was taken away`;
    if (root !== this.#rootWas) return `It is not mounted at "${this.#root}" any more, or something else is`;
    return undefined;
  }

  /** Whether something that is not it has its place, which must not be taken away for it. */
  isReplaced(): boolean {
    const file = this.#file === undefined ? undefined : look(this.#file), root = identify(this.#root, this.#rootWas);
    return (file !== undefined && !isSame(file, this.#fileWas)) || (root !== undefined && root !== this.#rootWas);
  }
}

/** What tells a directory from others: that of its filesystem, or of its mount where the filesystem may never answer. */
type Identity = string | undefined;

const ofMount = "mount ";

/** @param before Of which kind the answer is; absent for that which is safe. */
function identify(path: string, before?: Identity): Identity {
  if (before === undefined || before.startsWith(ofMount)) {
    const mount = mountAt(path);
    if (mount?.mayHang) return ofMount + mount.identity;
    if (before !== undefined && mount === undefined) return "nothing is mounted";
  }
  const info = look(path);
  return info && `${info.dev} ${info.ino}`;
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
