import { chmodSync } from "node:fs";
import type { IdMap } from "../runtime/runtime.ts";
import { shiftAcl, shiftCapability, type Translate, translator } from "./id_shift.ts";
import { check, cString, errno, libc, SystemCallError } from "./libc.ts";
import {
  AT_SYMLINK_NOFOLLOW,
  type EntryInfo,
  look,
  O_CLOEXEC,
  O_NOFOLLOW,
  O_PATH,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  type Visitor,
  type WalkOptions,
  walkTree,
} from "./walk_tree.ts";

/** Changing the owners of a whole tree in place, for filesystems without idmapped mounts and for volumes that containers share.
 *
 * The tree is hostile: the walk follows no symlink. It may be cut off at any point and repeated with the same maps: an id tells by itself
 * whether it was changed. What chown(2) takes away (setuid and setgid bits, file capabilities) is first written down in an extended
 * attribute of the file, so that a repetition finds it. Hard links come by more than once and are done once. */

const AT_FDCWD = -100, S_ISUGID = 0o6000;
const ENODATA = 61, ENOTSUP = 95;
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
  options: WalkOptions = {},
): Promise<number> {
  const shift = new Shift(translator(from?.uid, to?.uid), translator(from?.gid, to?.gid));
  return await walkTree(root, shift, options);
}

class Shift implements Visitor {
  readonly purpose = "change the owners";
  readonly #uid: Translate;
  readonly #gid: Translate;
  readonly #value = new Uint8Array(xattrBytesMax);

  constructor(uid: Translate, gid: Translate) {
    this.#uid = uid;
    this.#gid = gid;
  }

  entry(directory: number, name: Uint8Array, { mode, uid, gid }: EntryInfo): void {
    const kind = mode & S_IFMT;
    const nextUid = this.#uid(uid), nextGid = this.#gid(gid);
    const isChanged = nextUid !== uid || nextGid !== gid;
    const hasAttributes = kind !== S_IFLNK && this.#hasAttributes(directory, name);
    if (kind === S_IFREG && (hasAttributes || (mode & S_ISUGID) !== 0)) {
      this.#file(directory, name, { mode, uid: nextUid, gid: nextGid, isChanged });
    } else if (isChanged) this.#chown(directory, name, nextUid, nextGid);
    if (hasAttributes) this.#acls(directory, name);
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
    const path = attributePath(directory, name);
    for (const attribute of [names.aclAccess, names.aclDefault]) {
      const acl = this.#get(path, attribute);
      if (acl && shiftAcl(acl, this.#uid, this.#gid)) this.#set(path, attribute, acl);
    }
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
