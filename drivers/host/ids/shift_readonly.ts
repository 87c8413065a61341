import { isReadonly, openChild, openInode, setReadonly, subvolumeIdOf, subvolumesTop } from "../btrfs/ioctl.ts";
import { check, cString, errno, libc, SystemCallError } from "../ffi/libc.ts";
import { look } from "../files/walk_tree.ts";

/** Read-only subvolumes of btrfs in a tree whose owners change: each is made writable when the walk reaches it, and read-only again at the end. Its
 * state is first saved in an attribute of its parent directory, so that a repetition after a kill finds it. A container may have created them; each
 * is found again by id and inode number. */

const prefix = "trusted.lido.readonly.";
const ENODATA = 61, ENOTSUP = 95;

/** A subvolume that was read-only. */
export interface WasReadonly {
  readonly id: bigint;
  /** Location of its name: a subvolume, and a directory in it. */
  readonly parentId: bigint;
  readonly directoryInode: bigint;
}

/** Makes a directory writable if it is the root of a read-only subvolume.
 * @param directory Its parent, writable. @param name Ends with a NUL. @param inode Its inode number.
 * @returns undefined when it is not read-only, and was not when the change began. */
export function openReadonly(directory: number, name: Uint8Array, inode: number): WasReadonly | undefined {
  if (inode !== Number(subvolumesTop)) return undefined;
  const child = openChild(directory, name.subarray(0, name.indexOf(0)));
  try {
    const wasReadonly = tryIoctl(() => isReadonly(child));
    if (wasReadonly === undefined) return undefined; // another filesystem's directory with this number
    const id = subvolumeIdOf(child), marker = cString(`${prefix}${id}`), place = pathOf(directory);
    if (!wasReadonly) {
      if (!hasAttribute(place, marker)) return undefined;
    } else {
      check("note a read-only subvolume", libc.lsetxattr(place, marker, new Uint8Array(1), 1, 0));
      setReadonly(child, false);
    }
    return { id, parentId: subvolumeIdOf(directory), directoryInode: BigInt(look(directory).inode) };
  } finally {
    libc.close(child);
  }
}

/** Makes the subvolumes read-only again. @param root Descriptor of a directory of the filesystem. @param subvolumes In the order in which they were
 * found: nested ones are closed before the outer one. A deleted one is skipped. */
export function closeReadonly(root: number, subvolumes: readonly WasReadonly[]): void {
  for (const { id, parentId, directoryInode } of subvolumes.toReversed()) {
    withInode(root, id, undefined, (fd) => setReadonly(fd, true));
    withInode(root, parentId, directoryInode, (fd) => {
      if (Number(libc.lremovexattr(pathOf(fd), cString(`${prefix}${id}`))) >= 0 || errno() === ENODATA) return;
      throw new SystemCallError("forget a read-only subvolume", errno());
    });
  }
}

function withInode(root: number, subvolume: bigint, inode: bigint | undefined, work: (fd: number) => void): void {
  let fd: number;
  try {
    fd = openInode(root, subvolume, inode);
  } catch (error) {
    if (error instanceof SystemCallError && ["ENOENT", "ESTALE"].includes(error.code)) return;
    throw error;
  }
  try {
    work(fd);
  } finally {
    libc.close(fd);
  }
}

function tryIoctl<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (error instanceof SystemCallError && error.code === "ENOTTY") return undefined;
    throw error;
  }
}

function hasAttribute(path: Uint8Array, name: Uint8Array): boolean {
  const length = Number(libc.lgetxattr(path, name, null, 0));
  if (length >= 0) return true;
  if (errno() === ENODATA || errno() === ENOTSUP) return false;
  throw new SystemCallError("look for a note", errno());
}

/** A path of the directory itself, for calls that do not follow the last part. */
function pathOf(directory: number): Uint8Array {
  return cString(`/proc/self/fd/${directory}/.`);
}
