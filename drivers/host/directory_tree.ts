import { readdirSync } from "node:fs";
import { cString, errno, libc, SystemCallError } from "./libc.ts";
import { O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW } from "./walk_tree.ts";

/** Trees of directories in a kernel filesystem (cgroups). A container can make them deeper than a path can say, so each step is by a descriptor
 * and one name, with one descriptor open at a time. */

const AT_REMOVEDIR = 0x200, AT_FDCWD = -100;
const ENOENT = 2;

/** Calls `visit` for every directory below and including `root`, deepest first. A missing `root` is no error.
 * @param visit Gets a path that is valid during the call, however deep the directory is. */
export function visitDirectories(root: string, visit: (path: string) => void): void {
  walk(root, { leave: (directory) => visit(`/proc/self/fd/${directory}`) });
}

/** Removes every directory below and including `root`; their files are the kernel's. What is missing is no error.
 * @throws {SystemCallError} EBUSY: one is in use. */
export function removeDirectories(root: string): void {
  walk(root, { left: (parent, name) => removeDirectory(parent, name, root) });
  removeDirectory(AT_FDCWD, root, root);
}

interface Steps {
  /** Called in a directory when everything below it was left. */
  readonly leave?: (directory: number) => void;
  /** Called in the parent of a directory that was left; not for the root. */
  readonly left?: (parent: number, name: string) => void;
}

function walk(root: string, steps: Steps): void {
  let current = open(AT_FDCWD, root, O_NOFOLLOW);
  if (current === undefined) return;
  const step = (name: string, flags = O_NOFOLLOW) => {
    const next = open(current!, name, flags);
    if (next === undefined) return false;
    libc.close(current);
    current = next;
    return true;
  };
  const levels = [{ name: "", pending: directoriesIn(current) }];
  try {
    while (levels.length > 0) {
      const level = levels.at(-1)!;
      const child = level.pending.pop();
      if (child !== undefined) {
        if (step(child)) levels.push({ name: child, pending: directoriesIn(current) });
        continue;
      }
      steps.leave?.(current);
      levels.pop();
      if (levels.length === 0) break;
      if (!step("..", 0)) throw new SystemCallError(`leave a directory below "${root}"`, ENOENT);
      steps.left?.(current, level.name);
    }
  } finally {
    libc.close(current);
  }
}

/** @returns undefined when there is none. */
function open(directory: number, name: string, flags: number): number | undefined {
  const fd = Number(libc.openat(directory, cString(name), O_DIRECTORY | O_CLOEXEC | flags, 0));
  if (fd >= 0) return fd;
  const number = errno();
  if (number === ENOENT) return undefined;
  throw new SystemCallError(`open "${name}"`, number);
}

function directoriesIn(directory: number): string[] {
  return readdirSync(`/proc/self/fd/${directory}`, { withFileTypes: true })
    .filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

function removeDirectory(parent: number, name: string, root: string): void {
  if (Number(libc.unlinkat(parent, cString(name), AT_REMOVEDIR)) === 0) return;
  const number = errno();
  if (number !== ENOENT) throw new SystemCallError(`remove "${name}" of "${root}"`, number);
}
