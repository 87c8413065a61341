import { dirname } from "node:path";
import { check, cString, errno, libc, SystemCallError } from "../ffi/libc.ts";

/** Quota groups of btrfs by the kernel's own interface: reading and limiting one starts no process. @see linux/btrfs.h, linux/btrfs_tree.h */

const O_DIRECTORY = 0x10000, O_CLOEXEC = 0x80000;
/** _IOWR(0x94, 17, struct btrfs_ioctl_search_args), _IOWR(0x94, 18, struct btrfs_ioctl_ino_lookup_args): 4096 bytes each. */
const BTRFS_IOC_TREE_SEARCH = 0xd0009411, BTRFS_IOC_INO_LOOKUP = 0xd0009412;
/** _IOW(0x94, 42, struct btrfs_ioctl_qgroup_create_args), _IOR(0x94, 43, struct btrfs_ioctl_qgroup_limit_args). */
const BTRFS_IOC_QGROUP_CREATE = 0x4010942a, BTRFS_IOC_QGROUP_LIMIT = 0x8030942b;
/** _IOW(0x94, 44, struct btrfs_ioctl_quota_rescan_args). */
const BTRFS_IOC_QUOTA_RESCAN = 0x4040942c;
const rescanBytes = 64;
/** BTRFS_QGROUP_STATUS_FLAG_RESCAN, _INCONSISTENT. */
const rescanning = 2n, inconsistent = 4n;
const searchBytes = 4096, keyBytes = 104, headerBytes = 32;
const topInode = 256n, rootTree = 1n, quotaTree = 8n;
const rootItem = 132, statusItem = 240, infoItem = 242, limitItem = 244;
const limitsReferenced = 1n, noLimit = 0xffff_ffff_ffff_ffffn;
const ENOENT = 2, EBUSY = 16, ENOTCONN = 107, EINPROGRESS = 115;

export interface QuotaGroup {
  readonly referencedBytes: bigint;
  readonly limitBytes: bigint | undefined;
}

/** @returns Whether quotas are on in the filesystem of `path`. */
export function hasQuota(path: string): boolean {
  return within(path, (fd) => search(fd, quotaTree, { type: statusItem, offset: 0n }) !== undefined);
}

/** Whether the kernel has stopped counting, and with it enforcing limits, until a rescan: it does so when a group is deleted whose numbers are not 0,
 * and from Linux 6.8 on when a large subvolume is deleted. */
export function needsRescan(path: string): boolean {
  return within(path, needsRescanOf);
}

/** Starts a rescan; it continues in the kernel. */
export function startRescan(path: string): void {
  within(path, (fd) => {
    isDone("count quotas anew", libc.ioctl(fd, BTRFS_IOC_QUOTA_RESCAN, new Uint8Array(rescanBytes)), [
      EINPROGRESS,
      ENOTCONN,
    ]);
  });
}

/** @param path A subvolume's. @returns undefined when quotas are off. Recent writes count only after a sync. */
export function quotaGroup(path: string): QuotaGroup | undefined {
  return within(path, (fd) => {
    const id = idOf(fd);
    const info = search(fd, quotaTree, { type: infoItem, offset: id });
    if (!info) return undefined;
    const limit = search(fd, quotaTree, { type: limitItem, offset: id });
    const isLimited = limit !== undefined && (limit.data.getBigUint64(0, true) & limitsReferenced) !== 0n;
    return {
      referencedBytes: info.data.getBigUint64(8, true),
      limitBytes: isLimited ? limit.data.getBigUint64(8, true) : undefined,
    };
  });
}

/** @param path A subvolume's. @param bytes undefined lifts the limit, also one that a snapshot inherited. @returns Whether quotas are on. */
export function limitQuotaGroup(path: string, bytes: bigint | undefined): boolean {
  // Through the parent directory: through the subvolume itself the kernel counts the change against its limit, so the limit of a full one could
  // not be raised (EDQUOT).
  const id = within(path, idOf);
  return within(dirname(path), (fd) => {
    const argument = new BigUint64Array([id, limitsReferenced, bytes ?? noLimit, 0n, 0n, 0n]);
    return isDone("limit a quota group", libc.ioctl(fd, BTRFS_IOC_QGROUP_LIMIT, new Uint8Array(argument.buffer)), [
      ENOTCONN,
    ]);
  });
}

/** @param path A subvolume's. */
export function subvolumeId(path: string): bigint {
  return within(path, idOf);
}

/** Deletes the groups of deleted subvolumes. @returns Ids of groups that remain until the kernel has cleaned up their subvolume and counted that;
 * from 6.10 on it then deletes the group, too. */
export function destroyQuotaGroups(path: string, ids: readonly bigint[]): bigint[] {
  return within(path, (fd) => ids.filter((id) => !destroy(fd, id)));
}

/** @returns Every group whose subvolume is gone, as after a kill between the two deletions. */
export function staleQuotaGroups(path: string): bigint[] {
  return within(path, (fd) => {
    const stale: bigint[] = [];
    // From the first subvolume's id on; groups from 2^48 on are users' own, of higher levels.
    const lastId = (1n << 48n) - 1n;
    for (let id = topInode; id <= lastId; id++) {
      const found = search(fd, quotaTree, { type: infoItem, offset: id, lastOffset: lastId });
      if (!found) return stale;
      id = found.offset;
      if (!search(fd, rootTree, { objectid: id, type: rootItem, offset: 0n, lastOffset: noLimit })) stale.push(id);
    }
    return stale;
  });
}

function needsRescanOf(fd: number): boolean {
  const status = search(fd, quotaTree, { type: statusItem, offset: 0n });
  return status !== undefined && (status.data.getBigUint64(16, true) & (rescanning | inconsistent)) === inconsistent;
}

/** A group's numbers drop to 0 only in the transaction that deletes its subvolume. Deleting it earlier would make the kernel stop counting. */
function isCounted(fd: number, id: bigint): boolean {
  const info = search(fd, quotaTree, { type: infoItem, offset: id });
  return info !== undefined && [8, 16, 24, 32].some((at) => info.data.getBigUint64(at, true) !== 0n);
}

/** @returns Whether the group is gone. */
function destroy(fd: number, id: bigint): boolean {
  if (isCounted(fd, id) && !needsRescanOf(fd)) return false;
  const argument = new Uint8Array(new BigUint64Array([0n, id]).buffer);
  if (Number(libc.ioctl(fd, BTRFS_IOC_QGROUP_CREATE, argument)) >= 0) return true;
  const failed = errno();
  if (failed === EBUSY) return false;
  if (failed === ENOENT || failed === ENOTCONN) return true;
  throw new SystemCallError("destroy a quota group", failed);
}

function within<T>(path: string, work: (fd: number) => T): T {
  const fd = check(`open "${path}"`, libc.open(cString(path), O_DIRECTORY | O_CLOEXEC, 0));
  try {
    return work(fd);
  } finally {
    libc.close(fd);
  }
}

/** @returns False when it failed with one of `answers`. */
function isDone(call: string, result: number | bigint, answers: readonly number[]): boolean {
  if (Number(result) >= 0) return true;
  const failed = errno();
  if (answers.includes(failed)) return false;
  throw new SystemCallError(call, failed);
}

function idOf(fd: number): bigint {
  const argument = new Uint8Array(searchBytes);
  const view = new DataView(argument.buffer);
  view.setBigUint64(8, topInode, true);
  check("look up a subvolume", libc.ioctl(fd, BTRFS_IOC_INO_LOOKUP, argument));
  return view.getBigUint64(0, true);
}

interface Key {
  /** Default 0, as in all of the quota tree. */
  readonly objectid?: bigint;
  readonly type: number;
  readonly offset: bigint;
  /** Default: `offset`. */
  readonly lastOffset?: bigint;
}

/** @returns The first item in the range. */
function search(fd: number, tree: bigint, key: Key): { offset: bigint; data: DataView } | undefined {
  const { objectid = 0n, type, offset, lastOffset = offset } = key;
  const argument = new Uint8Array(searchBytes);
  const view = new DataView(argument.buffer);
  [tree, objectid, objectid, offset, lastOffset, 0n, noLimit].forEach((value, index) =>
    view.setBigUint64(8 * index, value, true)
  );
  view.setUint32(56, type, true);
  view.setUint32(60, type, true);
  view.setUint32(64, 1, true); // how many items
  // ENOENT: no such tree, because quotas were never on.
  if (!isDone("search a tree", libc.ioctl(fd, BTRFS_IOC_TREE_SEARCH, argument), [ENOENT])) return undefined;
  if (view.getUint32(64, true) === 0) return undefined;
  const bytes = view.getUint32(keyBytes + 28, true);
  return {
    offset: view.getBigUint64(keyBytes + 16, true),
    data: new DataView(argument.buffer, keyBytes + headerBytes, bytes),
  };
}
