import {
  chmodSync,
  constants,
  createReadStream,
  createWriteStream,
  lchownSync,
  lstatSync,
  mkdirSync,
  readlinkSync,
  rmdirSync,
  type Stats,
  statSync,
  symlinkSync,
  unlinkSync,
} from "node:fs";
import { opendir } from "node:fs/promises";
import { posix } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { LidoError } from "../../../api/errors.ts";
import { openBeneath, openBeneathFd, openRegular } from "./beneath.ts";
import { check, cString, libc } from "../ffi/libc.ts";

/** Files in a tree that containers write to, for users outside. The kernel resolves paths within the tree, whose root is "/": symbolic
 * links on the way are followed within the tree only, and one at the end of a path is not followed. Only regular files are
 * ever opened, so no FIFO can block and no device can be reached. @see openat2(2), proc_pid_fd(5) */

const O_PATH = 0x200000, O_TMPFILE = 0x410000, O_NOFOLLOW = 0x20000;
const O_CLOEXEC = 0x80000;
const AT_FDCWD = -100, AT_SYMLINK_FOLLOW = 0x400, AT_EMPTY_PATH = 0x1000;
const unchanged = 0xffffffff;
const entriesMax = 1_000_000;

export type FileType = "file" | "directory" | "symlink" | "other";

export interface FileInfo {
  readonly type: FileType;
  /** As on disk. */
  readonly uid: number;
  readonly gid: number;
  /** Permissions with setuid, setgid and sticky. */
  readonly mode: number;
  readonly sizeBytes: number;
  readonly modified: Date;
}

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** @returns undefined when there is nothing. */
export function statIn(root: string, path: string): FileInfo | undefined {
  return orNothing(() => within(root, path, (file) => infoOf(lstatSync(file))));
}

/** Target of a symbolic link, as written in it. */
export function linkTargetIn(root: string, path: string): string {
  return within(root, path, (file) => readlinkSync(file));
}

export interface DirectoryEntry {
  readonly name: string;
  readonly info: FileInfo;
}

/** Names in a directory, sorted. @throws {LidoError} bad_request when there are more than a million. */
export async function namesIn(root: string, path: string): Promise<string[]> {
  return (await entries(root, path, (_, name) => name)).sort();
}

/** As `namesIn`, with each entry's type; an entry that is deleted meanwhile is omitted. */
export async function entriesIn(root: string, path: string): Promise<DirectoryEntry[]> {
  const found = await entries(root, path, (directory, name): DirectoryEntry | undefined => {
    const info = orNothing(() => lstatSync(`${directory}/${name}`));
    return info && { name, info: infoOf(info) };
  });
  return found.filter((one) => one !== undefined).sort((left, right) => left.name < right.name ? -1 : 1);
}

/** The content of a regular file, up to its current size: a file that grows would have no end.
 * @throws {LidoError} bad_request when it is no regular file. */
export function readIn(root: string, path: string): { stream: Readable; sizeBytes: number } {
  const fd = openFile(root, path, constants.O_RDONLY);
  try {
    const file = selfPath(fd);
    const { size } = statSync(file);
    const stream = size === 0
      ? createReadStream("/dev/null")
      : createReadStream(file, { end: size - 1, highWaterMark: 1 << 18 });
    // Once open, the stream has its own descriptor; until then ours keeps the file.
    const close = once(() => libc.close(fd));
    stream.once("open", close).once("close", close);
    return { stream, sizeBytes: size };
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

export interface WriteOptions {
  readonly append: boolean;
  /** Owner of a new file. */
  readonly owner: Owner;
  readonly mode: number;
}

/** Writes a file. A new one appears only when it is complete; an existing one is overwritten in place and keeps its owner, mode and
 * links, as by cp(1). @throws {LidoError} bad_request when something else is there. */
export async function writeIn(root: string, path: string, content: Readable, options: WriteOptions): Promise<void> {
  const { directory, name } = parentOf(root, path);
  try {
    const existing = orNothing(() => openFile(root, path, constants.O_WRONLY));
    if (existing !== undefined) return await fill(existing, content, options.append ? "a" : "w");
    const info = orNothing(() => lstatSync(`${selfPath(directory)}/${name}`));
    if (info) {
      throw wrongType(path, infoOf(info).type === "symlink" ? "a symbolic link that leads to nothing" : "there");
    }
    const fd = check(
      `create "${path}"`,
      libc.open(cString(selfPath(directory)), O_TMPFILE | constants.O_RDWR | O_CLOEXEC, 0o600),
    );
    await fill(fd, content, "r+", (file) => {
      chown(fd, options.owner);
      chmodSync(file, options.mode);
      check(
        `create "${path}"`,
        libc.linkat(AT_FDCWD, cString(file), directory, cString(name), AT_SYMLINK_FOLLOW),
      );
    });
  } finally {
    libc.close(directory);
  }
}

/** @param path A directory's; an existing one is not changed. */
export function makeDirectoryIn(root: string, path: string, owner: Owner, mode: number): void {
  const before = statIn(root, path);
  if (before?.type === "directory") return;
  if (before) throw wrongType(path, nameOf(before.type));
  const { directory, name } = parentOf(root, path);
  try {
    mkdirSync(`${selfPath(directory)}/${name}`, 0o700);
    const fd = openBeneathFd(directory, name, { flags: O_PATH | constants.O_DIRECTORY });
    try {
      chown(fd, owner);
      chmodSync(selfPath(fd), mode);
    } finally {
      libc.close(fd);
    }
  } finally {
    libc.close(directory);
  }
}

/** @throws {Error} When the name exists. */
export function makeLinkIn(root: string, path: string, target: string, owner: Owner): void {
  const { directory, name } = parentOf(root, path);
  try {
    const file = `${selfPath(directory)}/${name}`;
    symlinkSync(target, file);
    lchownSync(file, owner.uid, owner.gid);
  } finally {
    libc.close(directory);
  }
}

/** Changes the given attributes of an existing file or directory; of a symbolic link only the owner. */
export function changeIn(root: string, path: string, change: { uid?: number; gid?: number; mode?: number }): void {
  within(root, path, (file) => {
    const fd = check(`open "${path}"`, libc.open(cString(file), O_PATH | O_NOFOLLOW | O_CLOEXEC, 0));
    try {
      // First, because a change of owner clears setuid.
      chown(fd, change);
      if (change.mode !== undefined) chmodSync(selfPath(fd), change.mode);
    } finally {
      libc.close(fd);
    }
  });
}

/** Removes a file, a link or an empty directory. @throws {Error} ENOENT, ENOTEMPTY. */
export function removeIn(root: string, path: string): void {
  within(root, path, (file) => {
    if (lstatSync(file).isDirectory()) rmdirSync(file);
    else unlinkSync(file);
  });
}

/** An absent id is not changed. @see fchownat(2) */
function chown(fd: number, { uid = unchanged, gid = unchanged }: Partial<Owner>): void {
  check("chown", libc.fchownat(fd, cString(""), uid, gid, AT_EMPTY_PATH));
}

async function fill(fd: number, content: Readable, flags: string, then: (file: string) => void = () => {}) {
  try {
    const file = selfPath(fd);
    await pipeline(content, createWriteStream(file, { flags, highWaterMark: 1 << 18 }));
    then(file);
  } finally {
    libc.close(fd);
  }
}

/** Opens a regular file. Links are followed within the tree. While it is open no process can take a lease that would keep the stream from opening
 * it once more. */
function openFile(root: string, path: string, flags: number): number {
  const fd = openBeneath(root, path, { flags: O_PATH, inRoot: true });
  try {
    const info = infoOf(statSync(selfPath(fd)));
    if (info.type !== "file") throw wrongType(path, nameOf(info.type));
    return openRegular(fd, path, flags);
  } finally {
    libc.close(fd);
  }
}

async function entries<T>(root: string, path: string, of: (directory: string, name: string) => T): Promise<T[]> {
  const fd = openBeneath(root, path, { flags: O_PATH | constants.O_DIRECTORY, inRoot: true });
  try {
    const found: T[] = [];
    for await (const { name } of await opendir(selfPath(fd), { bufferSize: 1024 })) {
      if (found.length >= entriesMax) {
        throw new LidoError("bad_request", `Cannot list "${path}": it has more than ${entriesMax} entries`);
      }
      found.push(of(selfPath(fd), name));
    }
    return found;
  } finally {
    libc.close(fd);
  }
}

/** Runs `work` with a path of `path`'s last part that stays valid whatever happens to the directories above. */
function within<T>(root: string, path: string, work: (file: string) => T): T {
  const { directory, name } = parentOf(root, path);
  try {
    return work(`${selfPath(directory)}/${name}`);
  } finally {
    libc.close(directory);
  }
}

/** Opens the directory that holds `path`; the tree's root counts as its own parent. */
function parentOf(root: string, path: string): { directory: number; name: string } {
  const clean = posix.normalize(`/${path}`).replace(/\/$/, "");
  const name = clean.slice(clean.lastIndexOf("/") + 1) || ".";
  const directory = openBeneath(root, posix.dirname(clean || "/"), {
    flags: O_PATH | constants.O_DIRECTORY,
    inRoot: true,
  });
  return { directory, name };
}

/** Node's functions accept no descriptor that Node did not open, but they accept its name below /proc. */
function selfPath(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

function infoOf(info: Stats): FileInfo {
  const type = info.isFile() ? "file" : info.isDirectory() ? "directory" : info.isSymbolicLink() ? "symlink" : "other";
  const { uid, gid, mode, size, mtime } = info;
  return { type, uid, gid, mode: mode & 0o7777, sizeBytes: size, modified: mtime };
}

function nameOf(type: FileType): string {
  const names = {
    file: "a file",
    directory: "a directory",
    symlink: "a symbolic link",
    other: "a FIFO, socket or device",
  };
  return names[type];
}

function wrongType(path: string, what: string): LidoError {
  return new LidoError("bad_request", `Cannot use "${path}": it is ${what}`);
}

function orNothing<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
}

function once(work: () => void): () => void {
  let isDone = false;
  return () => {
    if (!isDone) work();
    isDone = true;
  };
}
