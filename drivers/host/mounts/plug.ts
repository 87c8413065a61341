/** Enters a container's mount namespace and attaches or detaches one mount there. The path of the target is resolved
 * beneath the container's root by openat2(RESOLVE_IN_ROOT), so that /var/run leads to /run as at a start; a symlink at the target itself is
 * refused, and none leads out of the root.
 *
 * A filesystem of the container's on the way may never answer, so this runs in a file process (`drivers/runtime/files/file_server.ts`). */

import { closeSync, openSync } from "node:fs";
import { joinNamespace } from "./join_namespace.ts";
import { check, cString, libc, SystemCallError } from "../ffi/libc.ts";
import { inParent, isOurs, mountAt, mountOfFd, openInRoot, readWhole } from "./mounted_at.ts";
import type { Inside, ListedMount, MountRoot, PlugAnswer, PlugRequest } from "./plug_messages.ts";
import { listMounts, mountsBelow, unmountTree } from "./plug_tree.ts";

const O_PATH = 0x200000,
  O_DIRECTORY = 0x10000,
  O_CLOEXEC = 0x80000,
  O_NOFOLLOW = 0x20000,
  O_CREAT = 0x40,
  O_EXCL = 0x80;
const RESOLVE_NO_SYMLINKS = 0x04n;
const MOVE_MOUNT_F_EMPTY_PATH = 4, MOVE_MOUNT_T_EMPTY_PATH = 0x40;
const MNT_DETACH = 2, UMOUNT_NOFOLLOW = 8;
/** Limit on the container's own mounts, one over the other, that are unmounted to reach ours. */
const mountsMax = 64;
/** How often the mounts are read again because one was not at its listed place: a container may rename the directories above it in a loop. */
const searchesMax = 256;

/** @param data Identifies the container by its init; `data.pid` must be the process of `data.pidfd`. @returns The outcome. */
export function plug(data: PlugRequest): PlugAnswer {
  let mountinfo: number | undefined;
  try {
    // The container's mounts, but opened outside: its own /proc cannot be trusted.
    mountinfo = openSync(`/proc/${data.pid}/mountinfo`, "r");
    const fd = mountinfo;
    return inside(data, (root) => carryOut(root, data, fd));
  } catch (error) {
    return { code: (error as { code?: string }).code ?? String(error) };
  } finally {
    if (mountinfo !== undefined) closeSync(mountinfo);
  }
}

function carryOut(root: number, request: PlugRequest, mountinfo: number): PlugAnswer {
  const { target } = request;
  const read = () => listMounts(readWhole(mountinfo));
  switch (request.kind) {
    case "attach":
      return attach(root, request, read);
    case "detach":
      return detach(root, request, read);
    case "look":
      return { isMounted: inParent(root, target, (last) => isOurs(mountAt(last), request.root)) ?? false };
    case "locate":
      return locate(root, request, read());
  }
}

function attach(
  root: number,
  request: Extract<PlugRequest, { kind: "attach" }>,
  read: () => ListedMount[],
): PlugAnswer {
  const target = makeTarget(root, request);
  try {
    const flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    check("move_mount", libc.move_mount(request.tree, cString(""), target, cString(""), flags));
    const found = mountOfFd(request.tree);
    if (!found) return {};
    return { root: found, below: mountsBelow(read(), found.id).map(({ identity }) => identity) };
  } finally {
    libc.close(target);
  }
}

/** Omits mounts that the container has unmounted, moved or covered by now. */
function locate(
  root: number,
  { target, root: ours, below }: Extract<PlugRequest, { kind: "locate" }>,
  mounts: readonly ListedMount[],
): PlugAnswer {
  const at = (target: string, ours: MountRoot) =>
    inParent(root, target, (last) => {
      const found = mountAt(last);
      return isOurs(found, ours) ? found : undefined;
    });
  const found = at(target, ours);
  if (!found) return {};
  const identities = below.flatMap((one) => {
    const id = at(one.target, one.root)?.id;
    return mounts.filter((mount) => mount.id === id).map(({ identity }) => identity);
  });
  return { root: found, below: identities };
}

/** The container may have unmounted the mount, moved it (by renaming a directory above it), or mounted something over it. */
function detach(
  root: number,
  request: Extract<PlugRequest, { kind: "detach" }>,
  read: () => ListedMount[],
): PlugAnswer {
  let before: string | undefined;
  let isMoving = false;
  for (let search = 0; search < searchesMax; search++) {
    const mounts = read();
    const text = JSON.stringify(mounts);
    isMoving ||= before !== undefined && text !== before;
    before = text;
    const targets = mounts.map(({ target }) => target).reverse();
    // The mount that the target's path leads to now.
    const at = inParent(root, request.target, (last) => mountAt(last)?.id);
    const place = mounts.find(({ id }) => id === at)?.target ?? request.target;
    const isCovered = targets.filter((target) => target === place).length > 1;
    const unmount = (target: string, isCovered: boolean) =>
      unmountAt(root, target, request, { isCovered, mounts, read });
    const found = unmount(place, isCovered);
    if (found === "ours") return {};
    if (typeof found === "object") return { code: "EBUSY", place, ...found };
    if (isCovered && !request.lazy) return { code: "COVERED" };
    if (!request.root) return {};
    const others = new Set(targets.filter((target) => target !== place));
    let isElsewhere = found === "none" && targets.includes(place);
    for (const target of others) {
      const other = unmount(target, false);
      if (other === "ours") return {};
      if (typeof other === "object") return { code: "EBUSY", place: target, ...other };
      isElsewhere ||= other === "none";
    }
    // Every mount was found at its listed place, and is another one.
    if (!isElsewhere) return {};
  }
  // A mount below a covering one is not found at its listed place either, but the list does not change.
  return isMoving ? { code: "EAGAIN" } : {};
}

/** @param options.isCovered Whether the mounts over ours are unmounted, too, if `lazy` allows it.
 * @returns What was there; when ours is in use, which of our mounts are below it. */
function unmountAt(
  root: number,
  target: string,
  { root: ours, below, lazy }: Pick<Extract<PlugRequest, { kind: "detach" }>, "root" | "below" | "lazy">,
  { isCovered, mounts, read }: { isCovered: boolean; mounts: readonly ListedMount[]; read: () => ListedMount[] },
): "ours" | "another" | "none" | { readonly below: readonly string[] } {
  return inParent(root, target, (last) => {
    for (let count = 0; count < mountsMax; count++) {
      const found = mountAt(last);
      if (!found) return "none";
      const isIt = isOurs(found, ours);
      if (!isIt && !(isCovered && lazy)) return "another";
      if (unmount(last, lazy)) {
        if (isIt) return "ours";
        continue;
      }
      const tree = { id: found.id, mounts, ours: below, read };
      const left = unmountTree(root, tree, () => inParent(root, target, (last) => unmount(last, lazy)) ?? false);
      return left === undefined ? "ours" : { below: left };
    }
    return "another";
  }) ?? "none";
}

/** @param last Its name in the working directory. @returns Whether it was unmounted; false when it is in use. */
function unmount(last: string, lazy: boolean): boolean {
  try {
    check("umount", libc.umount2(cString(last), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)));
    return true;
  } catch (error) {
    if (error instanceof SystemCallError && error.code === "EBUSY") return false;
    throw error;
  }
}

/** Runs `work` with this thread in the container's mount namespace, passing a descriptor of its root. */
function inside<T>({ pid, pidfd }: Inside, work: (root: number) => T): T {
  const opened: number[] = [];
  const open = (path: string, flags: number): number => {
    const fd = check(`open ${path}`, libc.open(cString(path), flags | O_CLOEXEC, 0));
    opened.push(fd);
    return fd;
  };
  try {
    const own = open("/proc/thread-self/ns/mnt", 0);
    const theirs = open(`/proc/${pid}/ns/mnt`, 0);
    const root = open(`/proc/${pid}/root`, O_PATH | O_DIRECTORY);
    // Had the init ended before, its pid might be another process's by now, and so would the namespace and root.
    check("find the instance's init", libc.pidfd_send_signal(pidfd, 0, null, 0));
    joinNamespace(theirs, "enter the instance's mount namespace");
    try {
      return work(root);
    } finally {
      joinNamespace(own, "leave the instance's mount namespace");
    }
  } finally {
    for (const fd of opened) libc.close(fd);
  }
}

/** Opens the target, creating missing directories on the way as the container's root: the container's filesystem may be idmapped and know no
 * other owner. */
function makeTarget(root: number, request: Extract<PlugRequest, { kind: "attach" }>): number {
  const parts = request.target.split("/").filter(Boolean);
  for (let depth = 1; depth < parts.length || (depth === parts.length && request.isDirectory); depth++) {
    make(root, parts.slice(0, depth), request, (parent, name) => libc.mkdirat(parent, name, 0o755));
  }
  if (!request.isDirectory) {
    make(root, parts, request, (parent, name) => {
      const fd = Number(libc.openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o644));
      if (fd >= 0) libc.close(fd);
      return fd;
    });
  }
  const parent = openInRoot(root, `/${parts.slice(0, -1).join("/")}`, O_PATH | O_DIRECTORY);
  try {
    const flags = O_PATH | (request.isDirectory ? O_DIRECTORY : 0);
    return openInRoot(parent, parts.at(-1)!, flags, RESOLVE_NO_SYMLINKS);
  } finally {
    libc.close(parent);
  }
}

function make(
  root: number,
  parts: readonly string[],
  owner: { uid: number; gid: number },
  create: (parent: number, name: Uint8Array) => number,
): void {
  const path = `/${parts.join("/")}`;
  try {
    libc.close(openInRoot(root, path, O_PATH | O_NOFOLLOW));
    return;
  } catch (error) {
    if (!(error instanceof SystemCallError && error.code === "ENOENT")) throw error;
  }
  const parent = openInRoot(root, `/${parts.slice(0, -1).join("/")}`, O_PATH | O_DIRECTORY);
  // These change only this thread. @see setfsuid(2)
  libc.setfsgid(owner.gid);
  libc.setfsuid(owner.uid);
  try {
    check("create", create(parent, cString(parts.at(-1)!)));
  } finally {
    libc.setfsuid(0);
    libc.setfsgid(0);
    libc.close(parent);
  }
}
