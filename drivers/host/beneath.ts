import {
  chownSync,
  closeSync,
  constants,
  openSync,
  readSync,
  type Stats,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { LidoError } from "../../api/errors.ts";
import { check, cString, libc, SystemCallError } from "./libc.ts";

/** Files in a tree that is not ours: a container's root. Every path is resolved by the kernel beneath `root`; a symlink that a container planted
 * leads nowhere outside, and none is followed unless it is asked for. @see openat2(2) */

const RESOLVE_NO_XDEV = 0x01n,
  RESOLVE_NO_MAGICLINKS = 0x02n,
  RESOLVE_NO_SYMLINKS = 0x04n,
  RESOLVE_BENEATH = 0x08n,
  RESOLVE_IN_ROOT = 0x10n;
const O_CLOEXEC = 0x80000, O_PATH = 0x200000, O_DIRECTORY = 0x10000, O_NOFOLLOW = 0x20000;

export interface BeneathOptions {
  /** open(2) flags; O_CLOEXEC is added. Default O_RDONLY. */
  readonly flags?: number;
  readonly mode?: number;
  /** Symlinks are followed as the container would see them: its root is "/". Default: any symlink is refused (ELOOP). */
  readonly inRoot?: boolean;
  /** No mount point on the way is crossed (EXDEV): what a container has mounted, such as a FUSE, may never answer. */
  readonly oneMount?: boolean;
}

/** @param root A host path we trust. @param path In the tree, with or without a leading slash.
 * @returns An fd; the caller closes it. @throws {SystemCallError} ENOENT, ELOOP (a symlink), EXDEV (leaves the tree). */
export function openBeneath(root: string, path: string, options: BeneathOptions = {}): number {
  const directory = check(`open "${root}"`, libc.open(cString(root), O_PATH | O_DIRECTORY | O_CLOEXEC, 0));
  try {
    return openBeneathFd(directory, path, options);
  } finally {
    libc.close(directory);
  }
}

export function openBeneathFd(directory: number, path: string, options: BeneathOptions = {}): number {
  const { flags = 0, mode = 0, inRoot = false, oneMount = false } = options;
  const how = new BigUint64Array([
    BigInt(flags | O_CLOEXEC),
    BigInt(flags & constants.O_CREAT ? mode : 0),
    RESOLVE_NO_MAGICLINKS | (oneMount ? RESOLVE_NO_XDEV : 0n) |
    (inRoot ? RESOLVE_IN_ROOT : RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS),
  ]);
  const bytes = new Uint8Array(how.buffer);
  const relative = path.replace(/^\/+/, "") || ".";
  // EAGAIN: something on the way was renamed just then.
  for (let attempt = 0;; attempt++) {
    try {
      return check(`open "${path}"`, libc.openat2(directory, cString(relative), bytes, bytes.length));
    } catch (error) {
      if (!(error instanceof SystemCallError && error.code === "EAGAIN" && attempt < 128)) throw error;
    }
  }
}

/** Reads a regular file whole.
 * @param options.maxBytes Default 1 MiB.
 * @returns undefined when there is none. @throws {LidoError} bad_request if it is no regular file (a FIFO would block us) or is larger. */
export function readBeneath(
  root: string,
  path: string,
  options: { maxBytes?: number; inRoot?: boolean } = {},
): Uint8Array | undefined {
  const { maxBytes = 1 << 20, inRoot = false } = options;
  const found = regularBeneath(root, path, inRoot);
  if (!found) return undefined;
  try {
    const { size } = found.info;
    if (size > maxBytes) {
      throw new LidoError("bad_request", `Cannot read "${path}": it has ${size} bytes, ${maxBytes} are allowed`);
    }
    return readAtMost(found.file, size, maxBytes);
  } finally {
    libc.close(found.fd);
  }
}

/** Replaces the content of a regular file, or makes it; one that is there keeps its owner and mode.
 * @throws {LidoError} bad_request if there is something else. */
export function writeBeneath(
  root: string,
  path: string,
  content: string | Uint8Array,
  owner: { uid: number; gid: number; mode?: number },
): void {
  let found = regularBeneath(root, path, false);
  if (!found) {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | O_NOFOLLOW;
    const fd = openBeneath(root, path, { flags, mode: owner.mode ?? 0o644 });
    const file = `/proc/self/fd/${fd}`;
    chownSync(file, owner.uid, owner.gid);
    found = { fd, file, info: statSync(file) };
  }
  try {
    truncateSync(found.file, 0);
    writeFileSync(found.file, content);
  } finally {
    libc.close(found.fd);
  }
}

/** Whether there is anything at `path`; a symlink counts as itself. */
export function existsBeneath(root: string, path: string): boolean {
  try {
    libc.close(openBeneath(root, path, { flags: O_PATH | O_NOFOLLOW }));
    return true;
  } catch (error) {
    if (error instanceof SystemCallError) return error.code === "ELOOP";
    throw error;
  }
}

/** Whether there is a directory at `path`; a symlink, there or on the way, is none. */
export function isDirectoryBeneath(root: string, path: string): boolean {
  try {
    libc.close(openBeneath(root, path, { flags: O_PATH | O_DIRECTORY | O_NOFOLLOW }));
    return true;
  } catch (error) {
    if (error instanceof SystemCallError && /^(ENOENT|ENOTDIR|ELOOP)$/.test(error.code)) return false;
    throw error;
  }
}

/** Node's own functions take no fd that they did not open, but its name below /proc they do: the very same inode, whatever the container
 * does to the path meanwhile. O_PATH opens nothing, so a FIFO or a device cannot hurt. */
function regularBeneath(
  root: string,
  path: string,
  inRoot: boolean,
): { fd: number; file: string; info: Stats } | undefined {
  let fd: number;
  try {
    fd = openBeneath(root, path, { flags: O_PATH, inRoot });
  } catch (error) {
    if (error instanceof SystemCallError && (error.code === "ENOENT" || error.code === "ENOTDIR")) return undefined;
    throw error;
  }
  const file = `/proc/self/fd/${fd}`;
  const info = statSync(file);
  if (info.isFile()) return { fd, file, info };
  libc.close(fd);
  throw new LidoError("bad_request", `Cannot use "${path}": it is not a regular file`);
}

/** The file may grow while it is read: no more than `maxBytes` in any case. @param sizeBytes What it has; a buffer of `maxBytes` would cost more than
 * the reading. */
function readAtMost(file: string, sizeBytes: number, maxBytes: number): Uint8Array {
  const fd = openSync(file, constants.O_RDONLY);
  try {
    // One more: the end shows in a read that does not fill it.
    let content = new Uint8Array(Math.min(sizeBytes + 1, maxBytes));
    let length = 0;
    while (length < maxBytes) {
      if (length === content.length) {
        const larger = new Uint8Array(Math.min(2 * length, maxBytes));
        larger.set(content);
        content = larger;
      }
      const n = readSync(fd, content, length, content.length - length, null);
      if (n === 0) break;
      length += n;
    }
    return content.subarray(0, length);
  } finally {
    closeSync(fd);
  }
}
