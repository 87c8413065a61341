import { check, cString, libc } from "../ffi/libc.ts";
import { inParent, mountAt } from "./mounted_at.ts";
import type { ListedMount } from "./plug_messages.ts";

/** The mounts below one of ours: those of a disk that was attached with all mounts below its source. */

const AT_FDCWD = -100, AT_SYMLINK_NOFOLLOW = 0x100, AT_NO_AUTOMOUNT = 0x800;
const OPEN_TREE_CLONE = 1, O_CLOEXEC = 0x80000, MOVE_MOUNT_F_EMPTY_PATH = 4, UMOUNT_NOFOLLOW = 8;
const MS_PRIVATE = 1n << 18n;

/** @param text A mountinfo. @returns The mounts in its order, which is unspecified. */
export function listMounts(text: string): ListedMount[] {
  return text.split("\n").filter(Boolean).map((line) => {
    const [before] = line.split(" - ");
    const [id, parent, device, part, target, , ...tags] = before!.split(" ");
    const path = target!.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
    const isFollowing = tags.some((tag) => tag.startsWith("master:"));
    return { id: Number(id), parent: Number(parent), target: path, identity: `${id} ${device} ${part}`, isFollowing };
  });
}

/** @returns The mounts below a mount, in an order that allows unmounting: deeper mounts first, and covering ones before all others. */
export function mountsBelow(mounts: readonly ListedMount[], id: number): ListedMount[] {
  const children = Map.groupBy(mounts, ({ parent }) => parent);
  const below = (id: number, target: string | undefined): ListedMount[] =>
    (children.get(id) ?? []).filter((mount) => mount.id !== id)
      .sort((a, b) => Number(b.target === target) - Number(a.target === target))
      .flatMap((mount) => [...below(mount.id, mount.target), mount]);
  return below(id, mounts.find((mount) => mount.id === id)?.target);
}

/** Unmounts all mounts below a mount, if all of them are ours or came from the host, and then the mount itself; if one is in use, all are put back.
 * @param ours Identities of our mounts below it. @param unmount Unmounts the mount itself, and returns whether it did.
 * @returns undefined on success; else the identities of our mounts there now: those that were put back have new ones. */
export function unmountTree(
  root: number,
  { id, mounts, ours, read }: {
    readonly id: number;
    readonly mounts: readonly ListedMount[];
    readonly ours: readonly string[];
    readonly read: () => readonly ListedMount[];
  },
  unmount: () => boolean,
): readonly string[] | undefined {
  const all = mountsBelow(mounts, id);
  if (!all.every(({ isFollowing, identity }) => isFollowing || ours.includes(identity))) return ours;
  const removed: Removed[] = [];
  try {
    for (const { id, target } of all) {
      const copy = inParent(root, target, (last) => removeAt(last, id));
      if (copy === undefined) break;
      removed.push({ copy, target });
    }
    if (removed.length === all.length && unmount()) return undefined;
    putBack(root, removed);
    return mountsBelow(read(), id).map(({ identity }) => identity);
  } finally {
    for (const { copy } of removed) libc.close(copy);
  }
}

interface Removed {
  /** A detached copy, to put it back. */
  readonly copy: number;
  readonly target: string;
}

/** @returns A copy of the unmounted mount; undefined when it is in use or has another id. */
function removeAt(last: string, id: number): number | undefined {
  if (mountAt(last)?.id !== id) return undefined;
  const copy = copyOf(last);
  if (copy < 0) return undefined;
  if (libc.umount2(cString(last), UMOUNT_NOFOLLOW) === 0) return copy;
  libc.close(copy);
  return undefined;
}

/** @returns A descriptor, or a negative number when it cannot be copied. */
function copyOf(name: string): number {
  const path = cString(name);
  const flags = OPEN_TREE_CLONE | O_CLOEXEC | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
  const copy = Number(libc.open_tree(AT_FDCWD, path, flags));
  if (copy >= 0) return copy;
  // An unbindable mount must be made private before it can be copied.
  const attributes = new Uint8Array(new BigUint64Array([0n, 0n, MS_PRIVATE, 0n]).buffer);
  libc.mount_setattr(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, attributes, attributes.length);
  return Number(libc.open_tree(AT_FDCWD, path, flags));
}

/** Puts mounts back, the outer ones first. */
function putBack(root: number, removed: readonly Removed[]): void {
  for (const { copy, target } of removed.toReversed()) {
    inParent(root, target, (last) => {
      check(
        `put "${target}" back`,
        libc.move_mount(copy, cString(""), AT_FDCWD, cString(last), MOVE_MOUNT_F_EMPTY_PATH),
      );
    });
  }
}
