import { lstatSync } from "node:fs";
import { check, cString, errno, libc, SystemCallError } from "../ffi/libc.ts";

/** Subvolumes of btrfs by the kernel's own interface: by id, by descriptor, and with names as bytes, because a container chooses the names and may
 * move directories at any time. All calls block; those that wait for a transaction belong on a thread (`nested.ts`). @see linux/btrfs.h,
 * linux/btrfs_tree.h */

const O_DIRECTORY = 0x10000, O_CLOEXEC = 0x80000, O_NOFOLLOW = 0x20000, AT_REMOVEDIR = 0x200;
/** _IOWR(0x94, 17, …), _IOWR(0x94, 18, …), _IOW(0x94, 23, …), _IOW(0x94, 63, …): 4096 bytes each. */
const BTRFS_IOC_TREE_SEARCH = 0xd0009411, BTRFS_IOC_INO_LOOKUP = 0xd0009412;
const BTRFS_IOC_SNAP_CREATE_V2 = 0x50009417, BTRFS_IOC_SNAP_DESTROY_V2 = 0x5000943f;
/** _IOR(0x94, 25, __u64), _IOW(0x94, 26, __u64). */
const BTRFS_IOC_SUBVOL_GETFLAGS = 0x80089419, BTRFS_IOC_SUBVOL_SETFLAGS = 0x4008941a;
/** _IOR(0x94, 60, struct btrfs_ioctl_get_subvol_info_args). */
const BTRFS_IOC_GET_SUBVOL_INFO = 0x81f8943c;
const infoBytes = 504, infoUuid = 296, infoReceivedUuid = 328, uuidBytes = 16;
const BTRFS_SUBVOL_RDONLY = 2n, BTRFS_SUBVOL_SPEC_BY_ID = 16n;
const argumentBytes = 4096, nameOffset = 56;
const searchKeyBytes = 104, searchHeaderBytes = 32, searchItemsMax = 4096;
const rootTree = 1n, rootReference = 156, noLimit = 0xffff_ffff_ffff_ffffn;
/** Inode number of the root of each subvolume. */
export const subvolumesTop = 256n;
/** struct file_handle with a struct btrfs_fid without a parent (FILEID_BTRFS_WITHOUT_PARENT). */
const handleBytes = 20, handleType = 0x4d;

/** One subvolume in a directory of another. */
export interface NestedSubvolume {
  readonly id: bigint;
  readonly parentId: bigint;
  /** Inode of the directory, in the parent subvolume; the same in a snapshot of the parent. */
  readonly directoryInode: bigint;
  /** The kernel's bytes, not necessarily text. */
  readonly name: Uint8Array;
}

/** @param path A trusted path. @returns A descriptor; the caller closes it. */
export function openSubvolume(path: string): number {
  return check(`open "${path}"`, libc.open(cString(path), O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0));
}

/** Whether other subvolumes are nested in the one at `path`. Asks the kernel: a process per snapshot would cost more than the
 * snapshot. */
export function subvolumeHasChildren(path: string): boolean {
  const fd = openSubvolume(path);
  try {
    return references(fd, subvolumeIdOf(fd), 0n, 1).length > 0;
  } finally {
    libc.close(fd);
  }
}

/** @returns The id of the subvolume that `fd` is in. */
export function subvolumeIdOf(fd: number): bigint {
  const argument = new Uint8Array(argumentBytes);
  const view = new DataView(argument.buffer);
  view.setBigUint64(8, subvolumesTop, true);
  check("look up a subvolume", libc.ioctl(fd, BTRFS_IOC_INO_LOOKUP, argument));
  return view.getBigUint64(0, true);
}

/** @param path A trusted path. @returns The UUID by which `btrfs receive` finds the subvolume: the sent subvolume's, or its own. */
export function streamUuidOf(path: string): Uint8Array {
  const info = new Uint8Array(infoBytes);
  const fd = openSubvolume(path);
  try {
    check("look at a subvolume", libc.ioctl(fd, BTRFS_IOC_GET_SUBVOL_INFO, info));
  } finally {
    libc.close(fd);
  }
  const received = info.slice(infoReceivedUuid, infoReceivedUuid + uuidBytes);
  return received.some((byte) => byte !== 0) ? received : info.slice(infoUuid, infoUuid + uuidBytes);
}

/** @param path A directory's trusted path. @returns Its path in its subvolume: "" for the root, or "a/b". */
export function pathInSubvolume(path: string): string {
  const inode = lstatSync(path, { bigint: true }).ino;
  if (inode === subvolumesTop) return "";
  const argument = new Uint8Array(argumentBytes);
  new DataView(argument.buffer).setBigUint64(8, inode, true);
  const fd = openSubvolume(path);
  try {
    check("look up a directory", libc.ioctl(fd, BTRFS_IOC_INO_LOOKUP, argument));
  } finally {
    libc.close(fd);
  }
  return new TextDecoder().decode(argument.subarray(16, argument.indexOf(0, 16))).replace(/\/$/, "");
}

/** @param fd In the filesystem. @param inode A directory's inode in subvolume `id`. @returns Its path there, ending with a slash; empty for the root.
 * @throws {SystemCallError} ENAMETOOLONG */
export function directoryIn(fd: number, id: bigint, inode: bigint): Uint8Array {
  if (inode === subvolumesTop) return new Uint8Array();
  const argument = new Uint8Array(argumentBytes);
  const view = new DataView(argument.buffer);
  view.setBigUint64(0, id, true);
  view.setBigUint64(8, inode, true);
  check("look up a directory", libc.ioctl(fd, BTRFS_IOC_INO_LOOKUP, argument));
  return argument.slice(16, argument.indexOf(0, 16));
}

/** @param fd In the filesystem. @returns The direct children of subvolume `id`. */
export function childrenOf(fd: number, id: bigint): NestedSubvolume[] {
  const found: NestedSubvolume[] = [];
  for (let from = 0n;;) {
    const part = references(fd, id, from, searchItemsMax);
    if (part.length === 0) return found;
    found.push(...part);
    from = part.at(-1)!.id + 1n;
  }
}

/** @param fd In the filesystem. @param subvolume Id. @param inode A directory's inode in it; default its root.
 * @returns A descriptor, whatever the directory's name and place are by now. @throws {SystemCallError} ESTALE when it is gone.
 * @see open_by_handle_at(2) */
export function openInode(fd: number, subvolume: bigint, inode = subvolumesTop): number {
  const handle = new Uint8Array(8 + handleBytes);
  const view = new DataView(handle.buffer);
  view.setUint32(0, handleBytes, true);
  view.setInt32(4, handleType, true);
  view.setBigUint64(8, inode, true);
  view.setBigUint64(16, subvolume, true);
  return check(
    `open inode ${inode} of subvolume ${subvolume}`,
    libc.open_by_handle_at(fd, handle, O_DIRECTORY | O_CLOEXEC),
  );
}

/** @returns A descriptor of the entry `name` in `directory`; a symbolic link is refused. */
export function openChild(directory: number, name: Uint8Array): number {
  return check(
    "open a nested subvolume",
    libc.openat(directory, terminated(name), O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0),
  );
}

/** @param source A subvolume's descriptor. */
export function snapshotInto(directory: number, name: Uint8Array, source: number): void {
  const argument = namedArgument(name);
  new DataView(argument.buffer).setBigInt64(0, BigInt(source), true);
  check("make a snapshot of a nested subvolume", libc.ioctl(directory, BTRFS_IOC_SNAP_CREATE_V2, argument));
}

/** @param fd In the filesystem, on a mount without an id map. */
export function destroySubvolume(fd: number, { id, parentId, directoryInode, name }: NestedSubvolume): void {
  const argument = new Uint8Array(argumentBytes);
  const view = new DataView(argument.buffer);
  view.setBigUint64(16, BTRFS_SUBVOL_SPEC_BY_ID, true);
  view.setBigUint64(nameOffset, id, true);
  const what = `delete subvolume ${id}`;
  try {
    check(what, libc.ioctl(fd, BTRFS_IOC_SNAP_DESTROY_V2, argument));
  } catch (error) {
    // The kernel builds the whole path for it, which may be longer than its buffer.
    if (!(error instanceof SystemCallError && error.code === "ENAMETOOLONG")) throw error;
    const directory = openInode(fd, parentId, directoryInode);
    try {
      check(what, libc.ioctl(directory, BTRFS_IOC_SNAP_DESTROY_V2, namedArgument(name)));
    } finally {
      libc.close(directory);
    }
  }
}

export function isReadonly(fd: number): boolean {
  return (flagsOf(fd) & BTRFS_SUBVOL_RDONLY) !== 0n;
}

export function setReadonly(fd: number, readonly: boolean): void {
  const others = flagsOf(fd) & ~BTRFS_SUBVOL_RDONLY;
  const argument = new BigUint64Array([others | (readonly ? BTRFS_SUBVOL_RDONLY : 0n)]);
  check(
    `make a subvolume ${readonly ? "read-only" : "writable"}`,
    libc.ioctl(fd, BTRFS_IOC_SUBVOL_SETFLAGS, new Uint8Array(argument.buffer)),
  );
}

/** Removes an empty directory. @returns False when there is none. */
export function removeEmpty(directory: number, name: Uint8Array): boolean {
  if (Number(libc.unlinkat(directory, terminated(name), AT_REMOVEDIR)) >= 0) return true;
  const failed = new SystemCallError("remove an empty directory", errno());
  if (["ENOENT", "ENOTDIR", "ENOTEMPTY"].includes(failed.code)) return false;
  throw failed;
}

function flagsOf(fd: number): bigint {
  const argument = new BigUint64Array(1);
  check("look at a subvolume", libc.ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, new Uint8Array(argument.buffer)));
  return argument[0]!;
}

function references(fd: number, parentId: bigint, fromId: bigint, itemsMax: number): NestedSubvolume[] {
  const argument = new Uint8Array(argumentBytes);
  const view = new DataView(argument.buffer);
  [rootTree, parentId, parentId, fromId, noLimit, 0n, noLimit].forEach((value, index) =>
    view.setBigUint64(8 * index, value, true)
  );
  view.setUint32(56, rootReference, true);
  view.setUint32(60, rootReference, true);
  view.setUint32(64, itemsMax, true);
  check("list nested subvolumes", libc.ioctl(fd, BTRFS_IOC_TREE_SEARCH, argument));
  const found: NestedSubvolume[] = [];
  let at = searchKeyBytes;
  for (let left = view.getUint32(64, true); left > 0; left--) {
    const id = view.getBigUint64(at + 16, true), bytes = view.getUint32(at + 28, true);
    at += searchHeaderBytes;
    // struct btrfs_root_ref: the directory's inode, its index there, the length of the name.
    const name = argument.slice(at + 18, at + 18 + view.getUint16(at + 16, true));
    found.push({ id, parentId, directoryInode: view.getBigUint64(at, true), name });
    at += bytes;
  }
  return found;
}

function namedArgument(name: Uint8Array): Uint8Array {
  const argument = new Uint8Array(argumentBytes);
  argument.set(name, nameOffset);
  return argument;
}

function terminated(name: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(name.length + 1);
  bytes.set(name);
  return bytes;
}
