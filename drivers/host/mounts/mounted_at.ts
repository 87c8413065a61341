import { readSync } from "node:fs";
import { check, cString, libc, SystemCallError } from "../ffi/libc.ts";
import type { MountRoot } from "./plug_messages.ts";

/** Finds mounts of a container from inside its mount namespace, by paths beneath its root. */

const O_PATH = 0x200000, O_DIRECTORY = 0x10000, O_CLOEXEC = 0x80000;
const RESOLVE_NO_MAGICLINKS = 0x02n, RESOLVE_IN_ROOT = 0x10n;
const AT_FDCWD = -100, AT_EMPTY_PATH = 0x1000;
const STATX_INO = 0x100, STATX_MNT_ID = 0x1000, STATX_ATTR_MOUNT_ROOT = 0x2000n;
/** Follows no symlink, triggers no automount, and uses only what the kernel has cached. */
const statFlags = 0x100 | 0x800 | 0x4000;
const readBytes = 1 << 13;
/** Errors that mean that our mount is not there: no directory, or a filesystem of the container's that refuses us or has ended. */
const noWay: ReadonlySet<string> = new Set([
  ...["ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG"],
  ...["EACCES", "EIO", "ENOTCONN", "ECONNABORTED", "ESTALE"],
]);

/** `id` is the one in mountinfo. */
export type IdentifiedMount = Required<MountRoot>;

/** Runs `work` with the target's parent, resolved beneath the root, as the thread's working directory. The target itself is not opened but named by
 * its last part: a descriptor of ours would keep its mount busy. @returns undefined when there is no such directory. */
export function inParent<T>(root: number, target: string, work: (last: string) => T): T | undefined {
  const parts = target.split("/").filter(Boolean);
  const last = parts.pop() ?? ".";
  let parent: number;
  try {
    parent = openInRoot(root, `/${parts.join("/")}`, O_PATH | O_DIRECTORY);
  } catch (error) {
    if (error instanceof SystemCallError && noWay.has(error.code)) return undefined;
    throw error;
  }
  try {
    check("fchdir", libc.fchdir(parent));
    return work(last);
  } finally {
    libc.close(parent);
    libc.fchdir(root);
  }
}

/** @returns The mount at a name in the working directory; undefined when there is none. Asks no filesystem. */
export function mountAt(name: string): IdentifiedMount | undefined {
  return mountOf(AT_FDCWD, name, 0);
}

/** @param fd A mount's, attached or not. */
export function mountOfFd(fd: number): IdentifiedMount | undefined {
  return mountOf(fd, "", AT_EMPTY_PATH);
}

function mountOf(directory: number, name: string, flags: number): IdentifiedMount | undefined {
  const stat = new Uint8Array(256);
  const view = new DataView(stat.buffer);
  if (libc.statx(directory, cString(name), statFlags | flags, STATX_INO | STATX_MNT_ID, stat) !== 0) return undefined;
  const isRoot = (view.getBigUint64(8, true) & STATX_ATTR_MOUNT_ROOT) !== 0n;
  if (!isRoot) return undefined;
  return {
    device: device(view.getUint32(136, true), view.getUint32(140, true)),
    inode: view.getBigUint64(32, true),
    id: Number(view.getBigUint64(144, true)),
  };
}

/** The device in stat(2)'s form. @see makedev(3) */
function device(major: number, minor: number): bigint {
  const [high, low] = [BigInt(major), BigInt(minor)];
  return low & 0xffn | (high & 0xfffn) << 8n | (low & ~0xffn) << 12n | (high & ~0xfffn) << 32n;
}

export function isOurs(found: MountRoot | undefined, ours: MountRoot | undefined): boolean {
  if (found === undefined || !ours) return found !== undefined;
  const isSame = found.device === ours.device && found.inode === ours.inode;
  return isSame && (ours.id === undefined || found.id === ours.id);
}

/** Reads a file from its beginning. */
export function readWhole(fd: number): string {
  const chunks: Uint8Array[] = [];
  let position = 0;
  for (;;) {
    const chunk = new Uint8Array(readBytes);
    const length = readSync(fd, chunk, 0, readBytes, position);
    if (length === 0) return Buffer.concat(chunks).toString();
    chunks.push(chunk.subarray(0, length));
    position += length;
  }
}

/** @param path Symlinks on the way lead where the container's own processes would get; `RESOLVE_NO_SYMLINKS` in `resolve` refuses them. */
export function openInRoot(root: number, path: string, flags: number, resolve = 0n): number {
  const how = new Uint8Array(
    new BigUint64Array([BigInt(flags | O_CLOEXEC), 0n, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve]).buffer,
  );
  for (let attempt = 0;; attempt++) {
    try {
      return check("openat2", libc.openat2(root, cString(path), how, how.length));
    } catch (error) {
      // EAGAIN: a component of the path was renamed just then. After endless renames the container gets the error.
      if (!(error instanceof SystemCallError && error.code === "EAGAIN" && attempt < 128)) throw error;
    }
  }
}
