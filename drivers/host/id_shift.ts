/** Arithmetic of changing owners: which id becomes which, in an inode, an ACL and a capability. No system call is made here. */

import type { IdMap, IdRange } from "../runtime/runtime.ts";

/** The ids that mean themselves: a tree as it came out of its image. */
const identity: readonly IdRange[] = [{ container: 0, host: 0, count: 4294967295 }];

/** Host id of the one map → host id of the other, for the same id inside. */
export type Translate = (id: number) => number;

/** @returns What ids become. An id that already is one of `to`'s stays (so that a change may be repeated), and one that neither map knows stays too. */
export function translator(from: readonly IdRange[] | undefined, to: readonly IdRange[] | undefined): Translate {
  const source = from ?? identity;
  const target = to ?? identity;
  return (id) => {
    // Undoing to plain ids, every id is one of `to`'s: there the source decides alone.
    if (to && isMapped(to, id)) return id;
    const inside = source.find((range) => range.host <= id && id < range.host + range.count);
    if (!inside) return id;
    const container = inside.container + id - inside.host;
    const outside = target.find((range) => range.container <= container && container < range.container + range.count);
    return outside ? outside.host + container - outside.container : id;
  };
}

const isMapped = (ranges: readonly IdRange[], id: number): boolean =>
  ranges.some((range) => range.host <= id && id < range.host + range.count);

/** Whether a change from one map to the other can be cut off and repeated: no id that is still to be changed looks as if it had been. */
export function isRepeatable(from: IdMap | undefined, to: IdMap | undefined): boolean {
  return (["uid", "gid"] as const).every((kind) => {
    const source = from?.[kind] ?? to?.[kind].map(({ container, count }) => ({ container, host: container, count })) ??
      [];
    const target = to?.[kind] ?? from?.[kind].map(({ container, count }) => ({ container, host: container, count })) ??
      [];
    const offset = (range: IdRange): number => range.host - range.container;
    return source.every((a) =>
      target.every((b) => {
        const overlaps = a.host < b.host + b.count && b.host < a.host + a.count;
        return !overlaps || offset(a) === offset(b);
      })
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
