import { type BigIntStats, statSync } from "node:fs";
import { showBytes } from "../../api/size.ts";
import { mountAt } from "../../drivers/host/mounts/mounts.ts";
import type { Pool } from "../../drivers/storage/driver.ts";

/** Checks that a pool's directory and loop file are still those that were opened. Somebody may unmount the pool, mount something over it, or delete
 * or truncate its file; nothing may be written to its path then. A check costs two system calls, so it is done before each use. */
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

  /** @returns Why the opened pool is not at its path any more, in words for the user; undefined when it is. */
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

  /** Whether something else is at the pool's path or in place of its file, which must not be deleted instead of the pool. */
  isReplaced(): boolean {
    const file = this.#file === undefined ? undefined : look(this.#file), root = identify(this.#root, this.#rootWas);
    return (file !== undefined && !isSame(file, this.#fileWas)) || (root !== undefined && root !== this.#rootWas);
  }
}

/** Tells a directory from others: its device and inode, or the identity of its mount where the filesystem may never answer. */
type Identity = string | undefined;

const ofMount = "mount ";

/** @param before Earlier identity, whose kind the result has; absent chooses the kind that cannot hang. */
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
    return undefined; // whatever the error, the pool cannot be used
  }
}

function isSame(now: BigIntStats, before: BigIntStats | undefined): boolean {
  return now.dev === before?.dev && now.ino === before.ino;
}
