/** Arithmetic of changing owners: which id becomes which, in an inode, an ACL and a capability. Makes no system calls.
 *
 * A tree is recorded with a map, which tells for a host id on disk which container id owns the file. A tree may have owners outside its map: an image
 * or a backup has an owner beyond a small map, or the host itself has put a file there. So a map is completed first: - A container id outside the map
 * is stored unchanged, unless that host id means another container id. - Any other host id on disk is the host's own, and stays.
 *
 * With completed maps, a change from one map to another keeps every owner or refuses: it refuses when an owner has no place in the new map, because
 * the host id of the same number means another container id. No owner ever becomes another. */

import type { IdMap, IdRange } from "../id_map.ts";

/** One past the last id; 4294967295 is "no id" to the kernel. */
export const idsEnd = 4294967295;

/** Host id on disk under the old map → under the new one. @throws {OwnerError} If the owner has no place in the new one. */
export type Translate = (id: number) => number;

/** An owner that a map cannot have. */
export class OwnerError extends Error {
  override readonly name = "OwnerError";
}

/** Ids of a container that are moved together. */
export interface Segment {
  readonly container: number;
  readonly count: number;
  /** Host id of the first under the old map. */
  readonly source: number;
  /** Host id of the first under the new map; absent if there is no place for them. */
  readonly target?: number;
}

/** @returns The map with a line for each id that it stores unchanged. A map that reaches to the last id is complete; no map means unchanged ids. */
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

/** @returns The parts of `all` that are in none of `holes`. */
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

/** @param from A completed map. @param to Likewise. @returns Every id of `from`, by its host ids before and after. */
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

/** @returns Old id → new id. An id that is a target of the change stays, so that a change may be repeated: see `isRepeatable`. */
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
  // Most files of a tree have the same owner as the one before.
  let last: number | undefined, became = 0;
  return (id) => {
    if (id !== last) [became, last] = [translate(id), id];
    return became;
  };
}

/** Whether a change from one map to the other can be done in one pass, and repeated after an interruption: no id that is still to be changed or
 * refused equals the result of a change. */
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

/** Changes the root of a file capability: version 3 names the user namespace's root by its host id, version 2 means the host's.
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
