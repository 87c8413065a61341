import { setImmediate } from "node:timers/promises";
import { check, cString, libc } from "./libc.ts";

/** A walk through a tree that is hostile: each step is by a descriptor and one name, and no symlink is followed.
 *
 * One descriptor at a time, however deep the tree is; the way up is by ".." and checked against where we came from. */

export const AT_SYMLINK_NOFOLLOW = 0x100, AT_EMPTY_PATH = 0x1000;
export const O_DIRECTORY = 0x10000, O_NOFOLLOW = 0x20000, O_CLOEXEC = 0x80000, O_PATH = 0x200000;
export const S_IFMT = 0o170000, S_IFDIR = 0o040000, S_IFREG = 0o100000, S_IFLNK = 0o120000;
const STATX_BASIC_STATS = 0x7ff;
/** The event loop gets its turn after so many entries, about every 10 ms. */
const entriesPerTurn = 1000;

export interface WalkOptions {
  /** Told now and then how many entries are behind. */
  readonly progress?: (entries: number) => void;
  readonly signal?: AbortSignal;
}

/** What statx(2) told of an entry. */
export interface EntryInfo {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

export interface Visitor {
  /** What is done, for the text of an error: "change the owners". */
  readonly purpose: string;
  /** Called for the root (by the name "."), then for every entry of a directory before what is below it.
   * @param directory Descriptor that `name` is in. @param name Ends with a NUL; valid during the call. */
  entry(directory: number, name: Uint8Array, info: EntryInfo): void;
}

/** One directory on the way from the root to where the walk is. */
interface Level {
  readonly device: bigint;
  readonly inode: bigint;
  /** Names of subdirectories still to be entered. */
  readonly pending: Uint8Array[];
}

const empty = cString("");
const statBuffer = new Uint8Array(256);
const statView = new DataView(statBuffer.buffer);

/** @param name "" for the descriptor itself. */
export function look(directory: number, name: Uint8Array = empty): EntryInfo {
  statx(directory, name);
  return {
    mode: statView.getUint16(28, true),
    uid: statView.getUint32(20, true),
    gid: statView.getUint32(24, true),
  };
}

function statx(directory: number, name: Uint8Array): void {
  const flags = name.length === 1 ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW;
  check("look at a file", libc.statx(directory, name, flags, STATX_BASIC_STATS, statBuffer));
}

/** Visits every entry below and including `root`. @returns How many there are.
 * @throws {SystemCallError} What `visitor` throws, or if the filesystem refuses. */
export async function walkTree(root: string, visitor: Visitor, options: WalkOptions = {}): Promise<number> {
  const directory = check(`open "${root}"`, libc.open(cString(root), O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0));
  return await new Walk(visitor).walk(directory, options);
}

class Walk {
  readonly #visitor: Visitor;
  readonly #entries = new Uint8Array(65536);
  #count = 0;

  constructor(visitor: Visitor) {
    this.#visitor = visitor;
  }

  /** @param directory Is closed. */
  async walk(directory: number, options: WalkOptions): Promise<number> {
    let current = directory;
    let turn = 0;
    const levels: Level[] = [];
    try {
      this.#entry(current, cString("."));
      levels.push(await this.#directory(current));
      while (levels.length > 0) {
        const level = levels.at(-1)!;
        const name = level.pending.pop();
        if (name) {
          current = this.#move(current, name);
          levels.push(await this.#directory(current));
        } else {
          levels.pop();
          const parent = levels.at(-1);
          if (parent) {
            current = this.#move(current, cString(".."));
            this.#check(current, parent);
          }
        }
        if (this.#count - turn < entriesPerTurn) continue;
        turn = this.#count;
        options.signal?.throwIfAborted();
        options.progress?.(this.#count);
        await setImmediate();
      }
    } finally {
      libc.close(current);
    }
    options.progress?.(this.#count);
    return this.#count;
  }

  #move(from: number, name: Uint8Array): number {
    const next = check("open a directory", libc.openat(from, name, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0));
    libc.close(from);
    return next;
  }

  #check(directory: number, level: Level): void {
    const { device, inode } = this.#identity(directory);
    if (device === level.device && inode === level.inode) return;
    throw new Error(`Cannot ${this.#visitor.purpose} of a tree: directories were moved meanwhile`);
  }

  #identity(directory: number): { device: bigint; inode: bigint } {
    statx(directory, empty);
    return { device: statView.getBigUint64(136, true), inode: statView.getBigUint64(32, true) };
  }

  /** Visits all entries of one directory. */
  async #directory(directory: number): Promise<Level> {
    const identity = this.#identity(directory);
    const pending: Uint8Array[] = [];
    let turn = this.#count;
    for (;;) {
      const length = check("read a directory", libc.getdents64(directory, this.#entries, this.#entries.length));
      if (length === 0) return { ...identity, pending };
      const view = new DataView(this.#entries.buffer, 0, length);
      for (let offset = 0; offset < length; offset += view.getUint16(offset + 16, true)) {
        const start = offset + 19;
        // The name ends with a NUL, as system calls want it.
        const name = this.#entries.subarray(start, this.#entries.indexOf(0, start) + 1);
        const isDot = name[0] === 46 && (name.length === 2 || (name.length === 3 && name[1] === 46));
        if (!isDot && this.#entry(directory, name)) pending.push(name.slice());
      }
      if (this.#count - turn < entriesPerTurn) continue;
      turn = this.#count;
      await setImmediate();
    }
  }

  /** @returns Whether it is a directory to go into. */
  #entry(directory: number, name: Uint8Array): boolean {
    this.#count++;
    const info = look(directory, name);
    this.#visitor.entry(directory, name, info);
    return (info.mode & S_IFMT) === S_IFDIR;
  }
}
