import { setImmediate } from "node:timers/promises";
import { check, cString, libc } from "../ffi/libc.ts";

/** A walk through a hostile tree: each step is by a descriptor and one name, and no symlink is followed.
 *
 * Only one descriptor is open, however deep the tree is; the walk goes up by ".." and checks that it arrives at the directory it came from. */

export const AT_SYMLINK_NOFOLLOW = 0x100, AT_EMPTY_PATH = 0x1000;
export const O_DIRECTORY = 0x10000, O_NOFOLLOW = 0x20000, O_CLOEXEC = 0x80000, O_PATH = 0x200000;
export const S_IFMT = 0o170000, S_IFDIR = 0o040000, S_IFREG = 0o100000, S_IFLNK = 0o120000;
const STATX_BASIC_STATS = 0x7ff;
/** Entries per turn of the event loop, about 5 ms. */
const entriesPerTurn = 500;

export interface WalkOptions {
  /** Called regularly with the number of visited entries. */
  readonly progress?: (entries: number) => void;
  readonly signal?: AbortSignal;
}

/** An entry's data from statx(2). */
export interface EntryInfo {
  readonly mode: number;
  /** Number of hard links. */
  readonly links: number;
  readonly uid: number;
  readonly gid: number;
  readonly inode: number;
}

export interface Visitor {
  /** What the visitor does, for error messages: "change the owners". */
  readonly purpose: string;
  /** Called for the root (with the name "."), then for every entry of a directory before the entries below it.
   * @param directory Descriptor of the entry's directory. @param name Ends with a NUL; valid during the call. */
  entry(directory: number, name: Uint8Array, info: EntryInfo): void;
}

/** One directory between the root and the walk's position. */
interface Level {
  readonly device: bigint;
  readonly inode: bigint;
  /** Names of subdirectories not entered yet. */
  readonly pending: Uint8Array[];
}

const dot = cString("."), parent = cString(".."), empty = cString("");
const statBuffer = new Uint8Array(256);
const statView = new DataView(statBuffer.buffer);

/** @param name "" for `directory` itself. */
export function look(directory: number, name: Uint8Array = empty): EntryInfo {
  statx(directory, name);
  return {
    mode: statView.getUint16(28, true),
    links: statView.getUint32(16, true),
    uid: statView.getUint32(20, true),
    gid: statView.getUint32(24, true),
    inode: statView.getUint32(32, true) + 2 ** 32 * statView.getUint32(36, true),
  };
}

function statx(directory: number, name: Uint8Array): void {
  const flags = name.length === 1 ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW;
  check("look at a file", libc.statx(directory, name, flags, STATX_BASIC_STATS, statBuffer));
}

/** Visits every entry below and including `root`. @returns The number of entries.
 * @throws {SystemCallError} From `visitor`, or if the filesystem refuses. */
export async function walkTree(root: string, visitor: Visitor, options: WalkOptions = {}): Promise<number> {
  const walk = walkSteps(openTree(root), visitor);
  for (;;) {
    const { value, done } = walk.next();
    if (!done) {
      try {
        options.signal?.throwIfAborted();
      } catch (error) {
        walk.return(0);
        throw error;
      }
    }
    options.progress?.(value);
    if (done) return value;
    await setImmediate();
  }
}

/** @returns A descriptor of a tree's root. @throws {SystemCallError} ENOTDIR or ELOOP if it is a symlink. */
export function openTree(root: string): number {
  return check(`open "${root}"`, libc.open(cString(root), O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0));
}

export interface StepOptions {
  /** Whether the root itself is skipped: it is part of a tree whose walk has visited it. */
  readonly isPart?: boolean;
  /** Called with each directory that is entered. */
  readonly entered?: (directory: number) => void;
  /** Called where there are several directories to enter. @returns A function that takes over one of them, as a descriptor, from this walk. */
  readonly give?: () => ((directory: number) => void) | undefined;
}

/** The walk in steps of some hundred entries. @param root Closed by the walk. @yields Visited entries so far. @returns The number of entries. */
export function walkSteps(root: number, visitor: Visitor, options: StepOptions = {}): Generator<number, number, void> {
  return new Walk(root, visitor, options).steps();
}

class Walk {
  readonly #visitor: Visitor;
  readonly #options: StepOptions;
  readonly #entries = new Uint8Array(65536);
  #current: number;
  #count = 0;
  #turn = 0;

  constructor(root: number, visitor: Visitor, options: StepOptions) {
    this.#current = root;
    this.#visitor = visitor;
    this.#options = options;
  }

  *steps(): Generator<number, number, void> {
    const levels: Level[] = [];
    try {
      this.#options.entered?.(this.#current);
      if (!this.#options.isPart) this.#entry(dot);
      levels.push(yield* this.#directory());
      while (levels.length > 0) {
        const { pending } = levels.at(-1)!;
        if (pending.length > 1) this.#give(pending);
        const name = pending.pop();
        if (name) {
          this.#move(name);
          levels.push(yield* this.#directory());
        } else {
          levels.pop();
          const above = levels.at(-1);
          if (!above) break;
          this.#move(parent);
          this.#check(above);
        }
        if (this.#isTurn()) yield this.#count;
      }
      return this.#count;
    } finally {
      libc.close(this.#current);
    }
  }

  #isTurn(): boolean {
    if (this.#count - this.#turn < entriesPerTurn) return false;
    this.#turn = this.#count;
    return true;
  }

  #give(pending: Uint8Array[]): void {
    const take = this.#options.give?.();
    if (take) take(this.#open(pending.shift()!));
  }

  #open(name: Uint8Array): number {
    const flags = O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    return check("open a directory", libc.openat(this.#current, name, flags, 0));
  }

  #move(name: Uint8Array): void {
    const next = this.#open(name);
    libc.close(this.#current);
    this.#current = next;
    this.#options.entered?.(next);
  }

  #check(level: Level): void {
    const { device, inode } = this.#identity();
    if (device === level.device && inode === level.inode) return;
    throw new Error(`Cannot ${this.#visitor.purpose} of a tree: directories were moved meanwhile`);
  }

  #identity(): { device: bigint; inode: bigint } {
    statx(this.#current, empty);
    return { device: statView.getBigUint64(136, true), inode: statView.getBigUint64(32, true) };
  }

  /** Visits all entries of the current directory. */
  *#directory(): Generator<number, Level, void> {
    const identity = this.#identity();
    const pending: Uint8Array[] = [];
    const entries = this.#entries;
    for (;;) {
      const length = check("read a directory", libc.getdents64(this.#current, entries, entries.length));
      if (length === 0) return { ...identity, pending };
      for (let offset = 0; offset < length;) {
        const end = offset + entries[offset + 16]! + 256 * entries[offset + 17]!;
        const start = offset + 19;
        offset = end;
        const isDot = entries[start] === 46 &&
          (entries[start + 1] === 0 || (entries[start + 1] === 46 && entries[start + 2] === 0));
        if (isDot) continue;
        // The name ends with a NUL, as system calls need it; more NULs may follow.
        const name = entries.subarray(start, end);
        if (this.#entry(name)) pending.push(name.slice(0, name.indexOf(0) + 1));
        if (this.#isTurn()) yield this.#count;
      }
    }
  }

  /** @returns Whether it is a directory to enter. */
  #entry(name: Uint8Array): boolean {
    this.#count++;
    const info = look(this.#current, name);
    this.#visitor.entry(this.#current, name, info);
    return (info.mode & S_IFMT) === S_IFDIR;
  }
}
