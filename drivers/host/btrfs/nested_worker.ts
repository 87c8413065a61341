/** The thread of `nested.ts`. A container may move, replace and delete subvolumes while they are copied: in its tree everything is found by id and
 * inode number, never by a path. */

import type { NestedSubvolume } from "./ioctl.ts";
import type { NestedAnswer, NestedRequest } from "./nested_messages.ts";

const thread = self as unknown as {
  onmessage: (message: MessageEvent<NestedRequest>) => void;
  postMessage(data: NestedAnswer): void;
};
/** How often to search again for subvolumes created during the deletion. */
const roundsMax = 16;

type Kernel = typeof import("../ffi/libc.ts") & typeof import("./ioctl.ts");

thread.onmessage = async ({ data }) => {
  try {
    // Loaded only now: an import of libc awaits, and a message that arrives before `onmessage` is set would be lost.
    const kernel = { ...await import("../ffi/libc.ts"), ...await import("./ioctl.ts") };
    thread.postMessage(data.kind === "copy" ? copy(kernel, data) : { ids: remove(kernel, data.path) });
  } catch (error) {
    thread.postMessage({ failure: error instanceof Error ? error.message : String(error) });
  }
};

function copy(k: Kernel, request: Extract<NestedRequest, { kind: "copy" }>): NestedAnswer {
  using source = opened(k, k.openSubvolume(request.source));
  using target = opened(k, k.openSubvolume(request.target));
  const waiting = [{ from: k.subvolumeIdOf(source.fd), to: k.subvolumeIdOf(target.fd) }];
  /** Copies of read-only subvolumes; they stay writable until their own nested subvolumes are in. */
  const readonly: bigint[] = [];
  for (let parent = waiting.pop(); parent; parent = waiting.pop()) {
    for (const child of k.childrenOf(source.fd, parent.from)) {
      const made = copyOne(k, source.fd, child, parent.to);
      if (!made) continue;
      waiting.push({ from: child.id, to: made.id });
      if (made.isReadonly) readonly.push(made.id);
    }
  }
  for (const id of readonly) {
    using one = opened(k, k.openInode(target.fd, id));
    k.setReadonly(one.fd, true);
  }
  if (request.readonly) k.setReadonly(target.fd, true);
  return {};
}

/** @param target Id of the parent's copy. @returns undefined when the subvolume was moved or deleted since the parent was copied. */
function copyOne(
  k: Kernel,
  filesystem: number,
  child: NestedSubvolume,
  target: bigint,
): { id: bigint; isReadonly: boolean } | undefined {
  using source = openedIfThere(k, filesystem, child.id);
  using directory = openedIfThere(k, filesystem, target, child.directoryInode);
  // A subvolume created since then has no directory in its place there.
  if (!source || !directory || !k.removeEmpty(directory.fd, child.name)) return undefined;
  k.snapshotInto(directory.fd, child.name, source.fd);
  using made = opened(k, k.openChild(directory.fd, child.name));
  return { id: k.subvolumeIdOf(made.fd), isReadonly: k.isReadonly(source.fd) };
}

function remove(k: Kernel, path: string): bigint[] {
  using top = opened(k, k.openSubvolume(path));
  const topId = k.subvolumeIdOf(top.fd);
  const deleted: bigint[] = [];
  for (let round = 1;; round++) {
    const found: NestedSubvolume[] = [];
    for (let waiting = [topId]; waiting.length > 0;) {
      const children = waiting.flatMap((id) => k.childrenOf(top.fd, id));
      for (const child of children) found.push(child);
      waiting = children.map(({ id }) => id);
    }
    if (found.length === 0) return deleted;
    for (const one of found.reverse()) {
      if (removeOne(k, top.fd, one, round < roundsMax)) deleted.push(one.id);
    }
  }
}

/** @param isTry Whether to skip a subvolume that cannot be deleted now. @returns Whether it was deleted. */
function removeOne(k: Kernel, filesystem: number, one: NestedSubvolume, isTry: boolean): boolean {
  using parent = openedIfThere(k, filesystem, one.parentId);
  // The parent must be writable to remove a name from it.
  if (parent && k.isReadonly(parent.fd)) k.setReadonly(parent.fd, false);
  try {
    k.destroySubvolume(filesystem, one);
    return true;
  } catch (error) {
    const code = error instanceof k.SystemCallError ? error.code : "";
    if (isTry && (isGone(code) || code === "ENOTEMPTY" || code === "EROFS")) return false;
    throw error;
  }
}

function isGone(code: string): boolean {
  return code === "ENOENT" || code === "ESTALE";
}

interface Opened extends Disposable {
  readonly fd: number;
}

function opened(k: Kernel, fd: number): Opened {
  return { fd, [Symbol.dispose]: () => void k.libc.close(fd) };
}

function openedIfThere(k: Kernel, filesystem: number, subvolume: bigint, inode?: bigint): Opened | undefined {
  try {
    return opened(k, k.openInode(filesystem, subvolume, inode));
  } catch (error) {
    if (error instanceof k.SystemCallError && isGone(error.code)) return undefined;
    throw error;
  }
}
