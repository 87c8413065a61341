/** Arithmetic of changing owners: which id becomes which, in an inode, an ACL and a capability. No system call is made here.
 *
 * A tree is recorded with a map, which says for a host id on disk whose file it is. A tree may have owners that its map does not know: an image or a
 * backup has an owner beyond a small map, or the host itself has put a file there. So a map is completed first:
 * - A container id that the map does not have is on disk as it is, unless that host id means another container id.
 * - Any other host id on disk is the host's own, and stays.
 *
 * With that, a change from one map to another keeps every owner, or refuses: when an owner has no place in the new map, because the host id of its
 * number is another container id's. It never becomes another one. */

import type { IdMap, IdRange } from "../id_map.ts";

/** After the last id; 4294967295 is "no id" to the kernel. */
export const idsEnd = 4294967295;

/** Host id on disk with the one map → with the other. @throws {OwnerError} If the owner has no place in the other. */
export type Translate = (id: number) => number;

/** An owner that a map cannot have. */
export class OwnerError extends Error {
  override readonly name = "OwnerError";
}

/** Ids of a container that stay together in a change. */
export interface Segment {
  readonly container: number;
  readonly count: number;
  /** Host id of the first, before. */
  readonly source: number;
  /** After; absent if there is no place for them. */
  readonly target?: number;
}

/** @returns The map with a line for each id that it leaves on disk as it is. One that reaches to the last id is complete; none is ids as they are. */
export function completed(lines: readonly IdRange[] | undefined): readonly IdRange[] {
  if (!lines) return [{ container: 0, host: 0, count: idsEnd }];
  if (lines.some(({ container, count }) => container + count === idsEnd)) return lines;
  const used = lines.flatMap(({ container, host, count }) => [
    { start: container, end: container + count },
    { start: host, end: host + count },
  ]);
  return [...lines, ...without([{ start: 0, end: idsEnd }], used).map(plain)];
}

interface Interval {
  readonly start: number;
  readonly end: number;
}

const plain = ({ start, end }: Interval): IdRange => ({ container: start, host: start, count: end - start });

/** @returns What of `all` is in none of `holes`. */
export function without(all: readonly Interval[], holes: readonly Interval[]): Interval[] {
  let left = [...all];
  for (const hole of holes) {
    left = left.flatMap(({ start, end }) =>
      hole.end <= start || end <= hole.start
        ? [{ start, end }]
        : [{ start, end: hole.start }, { start: hole.end, end }].filter((part) => part.start < part.end)
    );
  }
  return left;
}

/** @param from A completed map. @param to Likewise. @returns Every id of `from`, by where it is before and after. */
export function segments(from: readonly IdRange[], to: readonly IdRange[]): Segment[] {
  return from.flatMap((line) => {
    const offset = line.host - line.container;
    const own = { start: line.container, end: line.container + line.count };
    const placed = to.flatMap(({ container, host, count }): Segment[] => {
      const start = Math.max(own.start, container), end = Math.min(own.end, container + count);
      if (start >= end) return [];
      return [{ container: start, count: end - start, source: start + offset, target: host + start - container }];
    });
    const holes = to.map(({ container, count }) => ({ start: container, end: container + count }));
    const lost = without([own], holes).map(({ start, end }) => ({
      container: start,
      count: end - start,
      source: start + offset,
    }));
    return [...placed, ...lost];
  });
}

export const isMoved = ({ source, target }: Segment): boolean => target !== undefined && target !== source;

/** @returns What ids become. An id that another becomes stays, so that a change may be repeated: see `isRepeatable`. */
export function translator(from: readonly IdRange[] | undefined, to: readonly IdRange[] | undefined): Translate {
  const all = segments(completed(from), completed(to));
  const moved = all.filter(isMoved), lost = all.filter(({ target }) => target === undefined);
  const translate = (id: number): number => {
    if (moved.some(({ target, count }) => target! <= id && id < target! + count)) return id;
    const found = moved.find(({ source, count }) => source <= id && id < source + count);
    if (found) return found.target! + id - found.source;
    const gone = lost.find(({ source, count }) => source <= id && id < source + count);
    if (!gone) return id;
    throw new OwnerError(`owner ${gone.container + id - gone.source} has no place in the new id map`);
  };
  // Most files of a tree have the owner of the one before.
  let last: number | undefined, became = 0;
  return (id) => {
    if (id !== last) [became, last] = [translate(id), id];
    return became;
  };
}

/** Whether a change from one map to the other can be done at once, and repeated when it was interrupted: no id that is still to be changed, or to be
 * refused, looks as if it had been changed. */
export function isRepeatable(from: IdMap | undefined, to: IdMap | undefined): boolean {
  return (["uid", "gid"] as const).every((kind) => {
    const all = segments(completed(from?.[kind]), completed(to?.[kind]));
    const moved = all.filter(isMoved);
    const pending = all.filter((each) => isMoved(each) || each.target === undefined);
    return !moved.some(({ target, count }) =>
      pending.some((each) => target! < each.source + each.count && each.source < target! + count)
    );
  });
}

const aclVersion = 2;
const aclUser = 0x02, aclGroup = 0x08;

/** Changes the ids of an ACL's entries in place. @param acl Value of system.posix_acl_*. @returns Whether any changed. @see acl(5), linux/posix_acl_xattr.h */
export function shiftAcl(acl: Uint8Array, uid: Translate, gid: Translate): boolean {
  const view = new DataView(acl.buffer, acl.byteOffset, acl.byteLength);
  if (acl.length < 4 || view.getUint32(0, true) !== aclVersion) return false;
  let changed = false;
  for (let offset = 4; offset + 8 <= acl.length; offset += 8) {
    const tag = view.getUint16(offset, true);
    if (tag !== aclUser && tag !== aclGroup) continue;
    const id = view.getUint32(offset + 4, true);
    const next = tag === aclUser ? uid(id) : gid(id);
    if (next === id) continue;
    view.setUint32(offset + 4, next, true);
    changed = true;
  }
  return changed;
}

const revisionMask = 0xff000000, revision2 = 0x02000000, revision3 = 0x03000000;
const capabilityBytes2 = 20, capabilityBytes3 = 24;

/** A file capability for another root: version 3 names the user namespace's root by its host id, version 2 means the host's.
 * @param capability Value of security.capability. @see capabilities(7), linux/capability.h */
export function shiftCapability(capability: Uint8Array, uid: Translate): Uint8Array {
  if (capability.length < capabilityBytes2) return capability;
  const view = new DataView(capability.buffer, capability.byteOffset, capability.byteLength);
  const magic = view.getUint32(0, true);
  const revision = (magic & revisionMask) >>> 0;
  if (revision !== revision2 && revision !== revision3) return capability;
  const root = revision === revision3 && capability.length >= capabilityBytes3 ? view.getUint32(20, true) : 0;
  const next = uid(root);
  const flags = magic & ~revisionMask;
  const shifted = new Uint8Array(next === 0 ? capabilityBytes2 : capabilityBytes3);
  shifted.set(capability.subarray(0, capabilityBytes2));
  const out = new DataView(shifted.buffer);
  out.setUint32(0, (next === 0 ? revision2 : revision3) | flags, true);
  if (next !== 0) out.setUint32(20, next, true);
  return shifted;
}
