import { chmodSync } from "node:fs";
import type { IdMap } from "../id_map.ts";
import { OwnerError, shiftAcl, shiftCapability, type Translate, translator } from "./id_shift.ts";
import { check, cString, errno, libc, SystemCallError } from "../ffi/libc.ts";
import { openReadonly, type WasReadonly } from "./shift_readonly.ts";
import {
  AT_SYMLINK_NOFOLLOW,
  type EntryInfo,
  look,
  O_CLOEXEC,
  O_NOFOLLOW,
  O_PATH,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  type Visitor,
} from "../files/walk_tree.ts";

/** Changes the owners of the entries that a walk visits. It may be interrupted at any point and repeated with the same maps: an id itself shows
 * whether it was changed. What chown(2) clears (setuid and setgid bits, file capabilities) is first saved in an extended attribute of the
 * file, so that a repetition finds it. Hard links are visited more than once and changed once. */

const S_ISUGID = 0o6000;
const ENODATA = 61, ENOTSUP = 95;
const xattrBytesMax = 65536;
const dot = ".".charCodeAt(0);

const markerName = "trusted.lido.shift";
const names = {
  marker: cString(markerName),
  capability: cString("security.capability"),
  aclAccess: cString("system.posix_acl_access"),
  aclDefault: cString("system.posix_acl_default"),
};

/** Attributes of a file that chown(2) clears. */
interface Marker {
  readonly mode: number;
  readonly capability?: string;
}

/** How the walking thread accesses extended attributes, and files that another thread may visit. */
export interface ShiftThread {
  /** Whether the thread's working directory is the walk's current directory; that saves half of the time. */
  readonly isWithin: boolean;
  /** Runs `work` while no other thread runs such work in this tree. */
  readonly exclusively: (work: () => void) => void;
  /** Called for each read-only subvolume that was made writable; the caller makes it read-only at the end (`closeReadonly`). */
  readonly opened: (subvolume: WasReadonly) => void;
}

/** A walk's visitor that changes owners. */
export interface OwnerShift extends Visitor {
  /** How many entries it has changed. */
  readonly changed: number;
}

/** @returns A visitor that changes the owner of each entry from one map to another. */
export function ownerShift(from: IdMap | undefined, to: IdMap | undefined, thread: ShiftThread): OwnerShift {
  return new Shift(translator(from?.uid, to?.uid), translator(from?.gid, to?.gid), thread);
}

class Shift implements OwnerShift {
  readonly purpose = "change the owners";
  changed = 0;
  #isChanged = false;
  readonly #uid: Translate;
  readonly #gid: Translate;
  readonly #value = new Uint8Array(xattrBytesMax);
  readonly #path = new Uint8Array(512);
  #prefixBytes = 0;
  #directory = -1;

  readonly #thread: ShiftThread;

  constructor(uid: Translate, gid: Translate, thread: ShiftThread) {
    this.#uid = uid;
    this.#gid = gid;
    this.#thread = thread;
  }

  entry(directory: number, name: Uint8Array, info: EntryInfo): void {
    this.#isChanged = false;
    try {
      this.#entry(directory, name, info);
    } catch (error) {
      if (!(error instanceof OwnerError)) throw error;
      const text = new TextDecoder().decode(name.subarray(0, name.indexOf(0)));
      throw new OwnerError(`Cannot change the owner of ${JSON.stringify(text)}: ${error.message}`);
    }
    if (this.#isChanged) this.changed++;
  }

  #entry(directory: number, name: Uint8Array, info: EntryInfo): void {
    const { mode, links, uid, gid, inode } = info;
    const kind = mode & S_IFMT;
    const isRoot = name[0] === dot && name[1] === 0;
    const subvolume = kind === S_IFDIR && !isRoot ? openReadonly(directory, name, inode) : undefined;
    if (subvolume) this.#thread.opened(subvolume);
    const hasAttributes = kind !== S_IFLNK && this.#hasAttributes(directory, name);
    if (kind === S_IFREG && (hasAttributes || (mode & S_ISUGID) !== 0)) {
      // Another thread may be changing it through another link: read its state again under the lock.
      if (links > 1) this.#thread.exclusively(() => this.#file(directory, name, look(directory, name)));
      else this.#file(directory, name, info);
    } else this.#chown(directory, name, uid, gid);
    if (hasAttributes) this.#acls(directory, name);
  }

  /** Changes a file with attributes that chown(2) clears: saves them, changes the owner, restores them. */
  #file(directory: number, name: Uint8Array, { mode, uid, gid }: EntryInfo): void {
    const path = this.#attributePath(directory, name);
    const marked = this.#get(path, names.marker);
    let marker: Marker | undefined;
    const isMoved = this.#uid(uid) !== uid || this.#gid(gid) !== gid;
    const capability = marked ? undefined : this.#get(path, names.capability);
    const shifted = capability && shiftCapability(capability, this.#uid);
    if (marked) marker = JSON.parse(new TextDecoder().decode(marked));
    else if (!isMoved) {
      // The capability's root may change even if the owner does not.
      if (shifted && !Buffer.from(shifted).equals(capability)) this.#set(path, names.capability, shifted);
      return;
    } else {
      if (shifted || (mode & S_ISUGID) !== 0) {
        marker = { mode: mode & 0o7777, ...(shifted ? { capability: Buffer.from(shifted).toString("base64") } : {}) };
        this.#set(path, names.marker, new TextEncoder().encode(JSON.stringify(marker)));
      }
    }
    this.#chown(directory, name, uid, gid);
    if (marker) this.#giveBack(directory, name, path, marker);
  }

  #giveBack(directory: number, name: Uint8Array, path: Uint8Array, marker: Marker): void {
    // chmod(2) would follow a symlink that has replaced the file; the descriptor is the file that was opened, whatever its name is by now.
    const fd = check("open a file", libc.openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0));
    try {
      if ((look(fd).mode & S_IFMT) !== S_IFREG) return;
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
    const path = this.#attributePath(directory, name);
    for (const attribute of [names.aclAccess, names.aclDefault]) {
      const acl = this.#get(path, attribute);
      if (acl && shiftAcl(acl, this.#uid, this.#gid)) this.#set(path, attribute, acl);
    }
  }

  #chown(directory: number, name: Uint8Array, uid: number, gid: number): void {
    const nextUid = this.#uid(uid), nextGid = this.#gid(gid);
    if (nextUid === uid && nextGid === gid) return;
    check("change an owner", libc.fchownat(directory, name, nextUid, nextGid, AT_SYMLINK_NOFOLLOW));
    this.#isChanged = true;
  }

  #hasAttributes(directory: number, name: Uint8Array): boolean {
    const length = Number(libc.llistxattr(this.#attributePath(directory, name), null, 0));
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
    this.#isChanged = true;
  }

  /** Extended attributes have no system calls by descriptor and name (before Linux 6.13): this is the descriptor's name below /proc, unless the
   * thread is in the directory. The l-functions do not follow the last part. @returns A buffer that is valid until the next call. */
  #attributePath(directory: number, name: Uint8Array): Uint8Array {
    if (this.#thread.isWithin) return name;
    if (directory !== this.#directory) {
      const prefix = new TextEncoder().encode(`/proc/self/fd/${directory}/`);
      this.#path.set(prefix);
      this.#prefixBytes = prefix.length;
      this.#directory = directory;
    }
    this.#path.set(name, this.#prefixBytes);
    return this.#path;
  }
}
