import { setImmediate } from "node:timers/promises";
import { cString, errno, libc, SystemCallError } from "../ffi/libc.ts";
import { O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW } from "./walk_tree.ts";

/** Trees of directories in a kernel filesystem (cgroups). A container can make them deeper than a path can express, so each step is by a descriptor
 * and one name, with one descriptor open at a time. It can make many, so the walk yields to the event loop. */

const AT_REMOVEDIR = 0x200, AT_FDCWD = -100;
const ENOENT = 2, DT_DIR = 4;
const sliceMs = 2;
const walksMax = 100;
const entriesBytes = 32 * 1024;

/** Calls `visit` for every directory below and including `root`, deepest first. A missing `root` is no error.
 * @param visit Gets a path that is valid during the call, however deep the directory is. */
export function visitDirectories(root: string, visit: (path: string) => void): Promise<void> {
  return inSlices(walk(root, { leave: (directory) => visit(`/proc/self/fd/${directory}`) }));
}

/** Removes every directory below and including `root`; their files are the kernel's. A missing directory is no error.
 * @throws {SystemCallError} EBUSY: one is in use. */
export async function removeDirectories(root: string): Promise<void> {
  await inSlices(walk(root, { left: (parent, name) => removeDirectory(parent, name, root) }));
  removeDirectory(AT_FDCWD, cString(root), root);
}

interface Steps {
  /** Called in a directory after everything below it. */
  readonly leave?: (directory: number) => void;
  /** Called in the parent of a directory after `leave` of that; not for the root. */
  readonly left?: (parent: number, name: Uint8Array) => void;
}

/** Yields after each step, so that other work can run. */
type Walk = Generator<void, void, void>;

async function inSlices(walk: Walk): Promise<void> {
  let began = performance.now();
  for (const _step of walk) {
    if (performance.now() - began < sliceMs) continue;
    await setImmediate();
    began = performance.now();
  }
}

/** Another walk may remove the directory that this one is in: then it starts again, and visits directories a second time. */
function* walk(root: string, steps: Steps): Walk {
  for (let walks = 0; !(yield* walkOnce(root, steps)); walks++) {
    if (walks >= walksMax) throw new SystemCallError(`leave a directory below "${root}"`, ENOENT);
  }
}

/** @returns Whether the walk was completed. */
function* walkOnce(root: string, steps: Steps): Generator<void, boolean, void> {
  let current = open(AT_FDCWD, cString(root), O_NOFOLLOW);
  if (current === undefined) return true;
  const step = (name: Uint8Array, flags = O_NOFOLLOW) => {
    const next = open(current!, name, flags);
    if (next === undefined) return false;
    libc.close(current);
    current = next;
    return true;
  };
  try {
    const levels = [{ name: cString(""), pending: yield* directoriesIn(current) }];
    while (levels.length > 0) {
      yield;
      const level = levels.at(-1)!;
      const child = level.pending.pop();
      if (child !== undefined) {
        if (step(child)) levels.push({ name: child, pending: yield* directoriesIn(current) });
        continue;
      }
      steps.leave?.(current);
      levels.pop();
      if (levels.length === 0) break;
      if (!step(cString(".."), 0)) return false;
      steps.left?.(current, level.name);
    }
    return true;
  } finally {
    libc.close(current);
  }
}

/** @returns undefined when there is none. */
function open(directory: number, name: Uint8Array, flags: number): number | undefined {
  const fd = Number(libc.openat(directory, name, O_DIRECTORY | O_CLOEXEC | flags, 0));
  if (fd >= 0) return fd;
  const number = errno();
  if (number === ENOENT) return undefined;
  throw new SystemCallError(`open "${shown(name)}"`, number);
}

/** @returns Names, each with its NUL. @see getdents64(2) */
function* directoriesIn(directory: number): Generator<void, Uint8Array[], void> {
  const names: Uint8Array[] = [];
  const entries = new Uint8Array(entriesBytes);
  for (;;) {
    const length = Number(libc.getdents64(directory, entries, entries.length));
    if (length < 0 && errno() !== ENOENT) throw new SystemCallError("read a directory", errno());
    if (length <= 0) return names; // removed meanwhile, or the end
    for (let offset = 0; offset < length;) {
      const size = entries[offset + 16]! + 256 * entries[offset + 17]!;
      const name = entries.subarray(offset + 19, entries.indexOf(0, offset + 19) + 1);
      if (entries[offset + 18] === DT_DIR && !/^\.\.?$/.test(shown(name))) names.push(name.slice());
      offset += size;
    }
    yield;
  }
}

function removeDirectory(parent: number, name: Uint8Array, root: string): void {
  if (Number(libc.unlinkat(parent, name, AT_REMOVEDIR)) === 0) return;
  const number = errno();
  if (number !== ENOENT) throw new SystemCallError(`remove "${shown(name)}" of "${root}"`, number);
}

function shown(name: Uint8Array): string {
  return new TextDecoder().decode(name.subarray(0, -1));
}
