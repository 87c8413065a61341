import { chmodSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import type { IdMap } from "../runtime/runtime.ts";
import { shiftAcl, shiftCapability, type Translate, translator } from "./id_shift.ts";
import { check, cString, errno, libc, SystemCallError } from "./libc.ts";

/** Changing the owners of a whole tree in place, for filesystems without idmapped mounts and for volumes that containers share.
 *
 * The tree is hostile: each step is by a descriptor and one name, and no symlink is followed. It may be cut off at any point and repeated with the
 * same maps: an id tells by itself whether it was changed. What chown(2) takes away (setuid and setgid bits, file capabilities) is
 * first written down in an extended attribute of the file, so that a repetition finds it. Hard links come by more than once and are done once. */

export interface ShiftOptions {
  /** Told now and then how many entries are behind. */
  readonly progress?: (entries: number) => void;
  readonly signal?: AbortSignal;
}

const AT_FDCWD = -100, AT_SYMLINK_NOFOLLOW = 0x100, AT_EMPTY_PATH = 0x1000;
const O_DIRECTORY = 0x10000, O_NOFOLLOW = 0x20000, O_CLOEXEC = 0x80000, O_PATH = 0x200000;
const STATX_BASIC_STATS = 0x7ff;
const S_IFMT = 0o170000, S_IFDIR = 0o040000, S_IFREG = 0o100000, S_IFLNK = 0o120000, S_ISUGID = 0o6000;
const ENODATA = 61, ENOTSUP = 95;
/** The event loop gets its turn after so many entries, about every 10 ms. */
const entriesPerTurn = 1000;
const xattrBytesMax = 65536;

const markerName = "trusted.lido.shift";
const names = {
  marker: cString(markerName),
  capability: cString("security.capability"),
  aclAccess: cString("system.posix_acl_access"),
  aclDefault: cString("system.posix_acl_default"),
};

/** What a file had that chown(2) takes away. */
interface Marker {
  readonly mode: number;
  readonly capability?: string;
}

/** Changes every owner below and including `root` from one map to another.
 * @param from Absent: ids as in the image. @param to Likewise. @returns How many entries there are.
 * @throws {SystemCallError} If the filesystem refuses; repeat the call to go on. */
export async function shiftTree(
  root: string,
  from: IdMap | undefined,
  to: IdMap | undefined,
  options: ShiftOptions = {},
): Promise<number> {
  const shift = new Shift(translator(from?.uid, to?.uid), translator(from?.gid, to?.gid));
  const directory = check(`open "${root}"`, libc.open(cString(root), O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0));
  return await shift.walk(directory, options);
}

/** One directory on the way from the root to where the walk is. */
interface Level {
  readonly device: bigint;
  readonly inode: bigint;
  /** Names of subdirectories still to be entered. */
  readonly pending: Uint8Array[];
}

class Shift {
  readonly #uid: Translate;
  readonly #gid: Translate;
  readonly #stat = new Uint8Array(256);
  readonly #view = new DataView(this.#stat.buffer);
  readonly #entries = new Uint8Array(65536);
  readonly #value = new Uint8Array(xattrBytesMax);
  #count = 0;

  constructor(uid: Translate, gid: Translate) {
    this.#uid = uid;
    this.#gid = gid;
  }

  /** One descriptor at a time, however deep the tree is; the way up is by ".." and checked against where we came from.
   * @param directory Is closed. */
  async walk(directory: number, options: ShiftOptions): Promise<number> {
    const dot = cString(".");
    let current = directory;
    let turn = 0;
    const levels: Level[] = [];
    try {
      this.#entry(current, dot, "self");
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
    throw new Error("Cannot change the owners of a tree: directories were moved meanwhile");
  }

  #identity(directory: number): { device: bigint; inode: bigint } {
    this.#statx(directory, cString(""), AT_EMPTY_PATH);
    return { device: this.#view.getBigUint64(136, true), inode: this.#view.getBigUint64(32, true) };
  }

  /** Changes all entries of one directory. */
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
  #entry(directory: number, name: Uint8Array, self?: "self"): boolean {
    this.#count++;
    this.#statx(directory, name, AT_SYMLINK_NOFOLLOW);
    const uid = this.#view.getUint32(20, true), gid = this.#view.getUint32(24, true);
    const mode = this.#view.getUint16(28, true), kind = mode & S_IFMT;
    const nextUid = this.#uid(uid), nextGid = this.#gid(gid);
    const isChanged = nextUid !== uid || nextGid !== gid;
    const hasAttributes = kind !== S_IFLNK && this.#hasAttributes(directory, name);
    if (kind === S_IFREG && (hasAttributes || (mode & S_ISUGID) !== 0)) {
      this.#file(directory, name, { mode, uid: nextUid, gid: nextGid, isChanged });
    } else if (isChanged) this.#chown(directory, name, nextUid, nextGid);
    if (hasAttributes) this.#acls(directory, name);
    return kind === S_IFDIR && !self;
  }

  /** A file with something that chown(2) takes away: written down, changed, given back, in this order. */
  #file(
    directory: number,
    name: Uint8Array,
    file: { mode: number; uid: number; gid: number; isChanged: boolean },
  ): void {
    const path = attributePath(directory, name);
    const marked = this.#get(path, names.marker);
    let marker: Marker | undefined;
    if (marked) marker = JSON.parse(new TextDecoder().decode(marked));
    else {
      const capability = this.#get(path, names.capability);
      const shifted = capability && shiftCapability(capability, this.#uid);
      if (!shifted && (file.mode & S_ISUGID) === 0) {
        if (file.isChanged) this.#chown(directory, name, file.uid, file.gid);
        return;
      }
      if (!file.isChanged) return;
      marker = {
        mode: file.mode & 0o7777,
        ...(shifted ? { capability: Buffer.from(shifted).toString("base64") } : {}),
      };
      this.#set(path, names.marker, new TextEncoder().encode(JSON.stringify(marker)));
    }
    if (file.isChanged) this.#chown(directory, name, file.uid, file.gid);
    this.#giveBack(directory, name, path, marker!);
  }

  #giveBack(directory: number, name: Uint8Array, path: Uint8Array, marker: Marker): void {
    // chmod(2) would follow a symlink that is there by now; through the descriptor it is the file that was opened, whatever it is named.
    const fd = check("open a file", libc.openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0));
    try {
      this.#statx(fd, cString(""), AT_EMPTY_PATH);
      if ((this.#view.getUint16(28, true) & S_IFMT) !== S_IFREG) return;
      chmodSync(`/proc/self/fd/${fd}`, marker.mode);
    } finally {
      libc.close(fd);
    }
    if (marker.capability) {
      this.#set(path, names.capability, new Uint8Array(Buffer.from(marker.capability, "base64")));
    }
    check("take a marker away", libc.lremovexattr(path, names.marker));
  }

  #acls(directory: number, name: Uint8Array): void {
    const path = attributePath(directory, name);
    for (const attribute of [names.aclAccess, names.aclDefault]) {
      const acl = this.#get(path, attribute);
      if (acl && shiftAcl(acl, this.#uid, this.#gid)) this.#set(path, attribute, acl);
    }
  }

  #statx(directory: number, name: Uint8Array, flags: number): void {
    check("look at a file", libc.statx(directory, name, flags, STATX_BASIC_STATS, this.#stat));
  }

  #chown(directory: number, name: Uint8Array, uid: number, gid: number): void {
    check("change an owner", libc.fchownat(directory, name, uid, gid, AT_SYMLINK_NOFOLLOW));
  }

  #hasAttributes(directory: number, name: Uint8Array): boolean {
    const length = Number(libc.llistxattr(attributePath(directory, name), null, 0));
    if (length >= 0) return length > 0;
    if (errno() === ENOTSUP) return false;
    throw new SystemCallError("list attributes", errno());
  }

  #get(path: Uint8Array, name: Uint8Array): Uint8Array | undefined {
    const length = Number(libc.lgetxattr(path, name, this.#value, this.#value.length));
    if (length >= 0) return this.#value.slice(0, length);
    if (errno() === ENODATA || errno() === ENOTSUP) return undefined;
    throw new SystemCallError("read an attribute", errno());
  }

  #set(path: Uint8Array, name: Uint8Array, value: Uint8Array): void {
    check("write an attribute", libc.lsetxattr(path, name, value, value.length, 0));
  }
}

let attributeDirectory = AT_FDCWD;
let attributePrefix = 0;
const attributeBuffer = new Uint8Array(512);

/** Extended attributes have no system calls by descriptor and name (before Linux 6.13): this is the descriptor's name below /proc. The last part is
 * not followed by the l-functions. @returns A buffer that is valid until the next call. */
function attributePath(directory: number, name: Uint8Array): Uint8Array {
  if (directory !== attributeDirectory) {
    const prefix = new TextEncoder().encode(`/proc/self/fd/${directory}/`);
    attributeBuffer.set(prefix);
    attributePrefix = prefix.length;
    attributeDirectory = directory;
  }
  attributeBuffer.set(name, attributePrefix);
  return attributeBuffer;
}
