import { chownSync, constants, type Stats, statSync, writeFileSync } from "node:fs";
import { LidoError } from "../../../api/errors.ts";
import { check, cString, libc, SystemCallError } from "../ffi/libc.ts";

/** Files in an untrusted tree: a container's root. The kernel resolves every path beneath `root`; a symlink planted by a container
 * cannot lead outside, and none is followed unless requested. @see openat2(2) */

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
  /** Mount points on the way are crossed: for trees in which only we mount. Default: not crossed (EXDEV), because a filesystem that a container
   * mounted, such as a FUSE, may never answer. */
  readonly acrossMounts?: boolean;
}

/** @param root A trusted host path. @param path In the tree, with or without a leading slash.
 * @returns An fd; the caller closes it. @throws {SystemCallError} ENOENT, ELOOP (a symlink), EXDEV (leaves the tree). */
export function openBeneath(root: string, path: string, options: BeneathOptions = {}): number {
  return inDirectory(root, (directory) => openBeneathFd(directory, path, options));
}

export function openBeneathFd(directory: number, path: string, options: BeneathOptions = {}): number {
  const { flags = 0, mode = 0, inRoot = false, acrossMounts = false } = options;
  const how = new BigUint64Array([
    BigInt(flags | O_CLOEXEC),
    BigInt(flags & constants.O_CREAT ? mode : 0),
    RESOLVE_NO_MAGICLINKS | (acrossMounts ? 0n : RESOLVE_NO_XDEV) |
    (inRoot ? RESOLVE_IN_ROOT : RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS),
  ]);
  const bytes = new Uint8Array(how.buffer);
  const relative = path.replace(/^\/+/, "") || ".";
  // EAGAIN: a component of the path was renamed just then.
  for (let attempt = 0;; attempt++) {
    try {
      return check(`open "${path}"`, libc.openat2(directory, cString(relative), bytes, bytes.length));
    } catch (error) {
      if (!(error instanceof SystemCallError && error.code === "EAGAIN" && attempt < 128)) throw error;
    }
  }
}

export interface ReadOptions extends Pick<BeneathOptions, "inRoot" | "acrossMounts"> {
  /** Default 1 MiB. */
  readonly maxBytes?: number;
  /** Called with an O_PATH descriptor of a regular file before it is opened; throws to refuse it. */
  readonly approve?: (file: number) => void;
}

/** Reads a whole regular file.
 * @returns undefined when there is none. @throws {LidoError} bad_request if it is no regular file (a FIFO would block us), is larger, or a
 * lease keeps it from being opened. */
export function readBeneath(root: string, path: string, options: ReadOptions = {}): Uint8Array | undefined {
  return inDirectory(root, (directory) => readBeneathFd(directory, path, options));
}

export function readBeneathFd(directory: number, path: string, options: ReadOptions = {}): Uint8Array | undefined {
  const { maxBytes = 1 << 20, approve } = options;
  const found = regularBeneath(directory, path, options);
  if (!found) return undefined;
  try {
    const { size } = found.info;
    if (size > maxBytes) {
      throw new LidoError("bad_request", `Cannot read "${path}": it has ${size} bytes, ${maxBytes} are allowed`);
    }
    approve?.(found.fd);
    const fd = openRegular(found.fd, path, constants.O_RDONLY);
    try {
      return readAtMost(fd, size, maxBytes);
    } finally {
      libc.close(fd);
    }
  } finally {
    libc.close(found.fd);
  }
}

/** Opens the regular file of an O_PATH descriptor without waiting: a process that has a lease on it delays other opens for 45 s.
 * @param flags O_RDONLY and the like. @throws {LidoError} bad_request for a leased file. @see F_SETLEASE in fcntl(2) */
export function openRegular(file: number, path: string, flags: number): number {
  const name = cString(selfPath(file));
  try {
    return check(`open "${path}"`, libc.open(name, flags | constants.O_NONBLOCK | O_CLOEXEC, 0));
  } catch (error) {
    if (!(error instanceof SystemCallError && error.code === "EAGAIN")) throw error;
    throw new LidoError("bad_request", `Cannot use "${path}": a process has a lease on it (fcntl F_SETLEASE)`);
  }
}

/** Replaces the content of a regular file, or creates it; an existing file keeps its owner and mode.
 * @throws {LidoError} bad_request if something else is there. */
export function writeBeneath(
  root: string,
  path: string,
  content: string | Uint8Array,
  owner: { uid: number; gid: number; mode?: number },
): void {
  inDirectory(root, (directory) => {
    const found = regularBeneath(directory, path, {});
    const file = found ? openRegular(found.fd, path, constants.O_WRONLY) : makeNew(directory, path, owner);
    try {
      check(`truncate "${path}"`, libc.ftruncate(file, 0));
      writeFileSync(selfPath(file), content);
    } finally {
      libc.close(file);
      if (found) libc.close(found.fd);
    }
  });
}

function makeNew(directory: number, path: string, owner: { uid: number; gid: number; mode?: number }): number {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | O_NOFOLLOW;
  const fd = openBeneathFd(directory, path, { flags, mode: owner.mode ?? 0o644 });
  chownSync(selfPath(fd), owner.uid, owner.gid);
  return fd;
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

/** As `existsBeneath`, by a descriptor. @throws {SystemCallError} EXDEV when a mount on the way is not to be crossed. */
export function existsBeneathFd(directory: number, path: string, options: BeneathOptions = {}): boolean {
  try {
    libc.close(openBeneathFd(directory, path, { ...options, flags: O_PATH | O_NOFOLLOW }));
    return true;
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "ENOENT" || code === "ENOTDIR") return false;
    if (code === "ELOOP" || code === "EACCES") return true;
    throw error;
  }
}

/** Runs `work` with an O_PATH descriptor of a trusted directory. */
export function inDirectory<T>(root: string, work: (directory: number) => T): T {
  const directory = check(`open "${root}"`, libc.open(cString(root), O_PATH | O_DIRECTORY | O_CLOEXEC, 0));
  try {
    return work(directory);
  } finally {
    libc.close(directory);
  }
}

/** O_PATH does not open the file itself, so a FIFO or a device is harmless. */
function regularBeneath(
  directory: number,
  path: string,
  options: BeneathOptions,
): { fd: number; info: Stats } | undefined {
  const { inRoot = false, acrossMounts = false } = options;
  let fd: number;
  try {
    fd = openBeneathFd(directory, path, { flags: O_PATH, inRoot, acrossMounts });
  } catch (error) {
    if (error instanceof SystemCallError && (error.code === "ENOENT" || error.code === "ENOTDIR")) return undefined;
    throw error;
  }
  const info = statSync(selfPath(fd));
  if (info.isFile()) return { fd, info };
  libc.close(fd);
  throw new LidoError("bad_request", `Cannot use "${path}": it is not a regular file`);
}

/** Node's functions accept no descriptor that Node did not open, but they accept its name below /proc: the same inode, whatever the container
 * does to the path meanwhile. */
function selfPath(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

/** The file may grow while it is read: never reads more than `maxBytes`. @param sizeBytes The file's size; a buffer of `maxBytes` would cost more
 * than the read. */
function readAtMost(file: number, sizeBytes: number, maxBytes: number): Uint8Array {
  // One byte more: a read that does not fill the buffer shows the end.
  let content = new Uint8Array(Math.min(sizeBytes + 1, maxBytes));
  let length = 0;
  while (length < maxBytes) {
    if (length === content.length) {
      const larger = new Uint8Array(Math.min(2 * length, maxBytes));
      larger.set(content);
      content = larger;
    }
    const rest = content.subarray(length);
    const count = check("read", libc.read(file, rest, rest.length));
    if (count === 0) break;
    length += count;
  }
  return content.subarray(0, length);
}
