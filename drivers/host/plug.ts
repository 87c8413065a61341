/** Enters a container's mount namespace and attaches or detaches one mount there. The way to the target is resolved
 * beneath the container's root by openat2(RESOLVE_IN_ROOT), so that /var/run leads to /run as at a start; a symlink at the target itself is
 * refused, and none leads out of the root.
 *
 * A filesystem of the container's on the way may never answer: this runs in a process of its own (`drivers/runtime/file_server.ts`). */

import { closeSync, openSync, readSync } from "node:fs";
import { joinNamespace } from "./join_namespace.ts";
import { check, cString, libc, SystemCallError } from "./libc.ts";
import type { Inside, MountRoot, PlugAnswer, PlugRequest } from "./plug_messages.ts";

const O_PATH = 0x200000,
  O_DIRECTORY = 0x10000,
  O_CLOEXEC = 0x80000,
  O_NOFOLLOW = 0x20000,
  O_CREAT = 0x40,
  O_EXCL = 0x80;
const RESOLVE_NO_MAGICLINKS = 0x02n, RESOLVE_NO_SYMLINKS = 0x04n, RESOLVE_IN_ROOT = 0x10n;
const MOVE_MOUNT_F_EMPTY_PATH = 4, MOVE_MOUNT_T_EMPTY_PATH = 0x40;
const MNT_DETACH = 2, UMOUNT_NOFOLLOW = 8;
const AT_FDCWD = -100, STATX_INO = 0x100, STATX_MNT_ID = 0x1000, STATX_ATTR_MOUNT_ROOT = 0x2000n;
/** No symlink, no automount, and nothing that has to be asked for elsewhere. */
const statFlags = 0x100 | 0x800 | 0x4000;
/** How many mounts of the container's own, one over the other, are taken away to get at ours. */
const mountsMax = 64;
/** How often the mounts are read anew when one was not where they said it was: a container renames what it is below in a loop. */
const searchesMax = 256;
const readBytes = 1 << 13;
/** Nothing of ours is there: no directory, or a filesystem of the container's that refuses us or has ended. */
const noWay: ReadonlySet<string> = new Set([
  ...["ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG"],
  ...["EACCES", "EIO", "ENOTCONN", "ECONNABORTED", "ESTALE"],
]);

/** @param data By its init; it must be the process of `data.pidfd`. @returns What became of it. */
export function plug(data: PlugRequest): PlugAnswer {
  let mountinfo: number | undefined;
  try {
    // As the container sees it, but opened where its /proc is not to be believed in.
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
  if (request.kind === "attach") {
    attach(root, request);
    return {};
  }
  if (request.kind === "detach") return detach(root, request, mountinfo);
  const isMounted = inParent(root, request.target, (last) => isOurs(mountAt(last), request.root));
  return { isMounted: isMounted ?? false };
}

function attach(root: number, request: Extract<PlugRequest, { kind: "attach" }>): void {
  const target = makeTarget(root, request);
  try {
    const flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    check("move_mount", libc.move_mount(request.tree, cString(""), target, cString(""), flags));
  } finally {
    libc.close(target);
  }
}

/** The container may have unmounted it itself, moved it (a directory on the way was renamed), or mounted something over it. */
function detach(
  root: number,
  request: Extract<PlugRequest, { kind: "detach" }>,
  mountinfo: number,
): PlugAnswer {
  let before: string | undefined;
  let isMoving = false;
  for (let search = 0; search < searchesMax; search++) {
    const text = readWhole(mountinfo);
    isMoving ||= before !== undefined && text !== before;
    before = text;
    const listed = mountsOf(text);
    const targets = [...listed.values()].reverse();
    // Where the way to the target leads now.
    const at = inParent(root, request.target, (last) => mountAt(last)?.id);
    const place = (at === undefined ? undefined : listed.get(at)) ?? request.target;
    const isCovered = targets.filter((target) => target === place).length > 1;
    const found = unmountAt(root, place, request, isCovered);
    if (found === "ours") return {};
    if (found === "busy") return { code: "EBUSY", place };
    if (isCovered && !request.lazy) return { code: "COVERED" };
    if (!request.root) return {};
    const others = new Set(targets.filter((target) => target !== place));
    let isElsewhere = found === "none" && targets.includes(place);
    for (const target of others) {
      const other = unmountAt(root, target, request, false);
      if (other === "ours") return {};
      if (other === "busy") return { code: "EBUSY", place: target };
      isElsewhere ||= other === "none";
    }
    // Each mount was looked at where it is, and is another.
    if (!isElsewhere) return {};
  }
  // What is below another mount is not where it is said to be either, but stays there.
  return isMoving ? { code: "EAGAIN" } : {};
}

/** @param isCovered Whether what is over ours goes too, if it may. @returns What was there. */
function unmountAt(
  root: number,
  target: string,
  { root: ours, lazy }: { root?: MountRoot; lazy: boolean },
  isCovered: boolean,
): "ours" | "busy" | "another" | "none" {
  return inParent(root, target, (last) => {
    for (let count = 0; count < mountsMax; count++) {
      const found = mountAt(last);
      if (!found) return "none";
      const isIt = isOurs(found, ours);
      if (!isIt && !(isCovered && lazy)) return "another";
      try {
        check("umount", libc.umount2(cString(last), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)));
      } catch (error) {
        if (error instanceof SystemCallError && error.code === "EBUSY") return "busy";
        throw error;
      }
      if (isIt) return "ours";
    }
    return "another";
  }) ?? "none";
}

/** Runs `work` with the target's parent, which is resolved beneath the root, as the thread's working directory. Nothing may hold a mount while it
 * goes, a descriptor of ours included: so its last part goes by its name. @returns undefined when there is no such directory. */
function inParent<T>(root: number, target: string, work: (last: string) => T): T | undefined {
  const parts = target.split("/").filter(Boolean);
  const last = parts.pop() ?? ".";
  let parent: number;
  try {
    parent = openInRoot(root, `/${parts.join("/")}`, O_PATH | O_DIRECTORY);
  } catch (error) {
    if (error instanceof SystemCallError && noWay.has(error.code)) return undefined;
    throw error;
  }
  try {
    check("fchdir", libc.fchdir(parent));
    return work(last);
  } finally {
    libc.close(parent);
    libc.fchdir(root);
  }
}

/** @returns What is mounted at a name of the working directory, and its id in mountinfo; undefined when nothing is. Asks no filesystem. */
function mountAt(name: string): MountRoot & { readonly id: number } | undefined {
  const stat = new Uint8Array(256);
  const view = new DataView(stat.buffer);
  if (libc.statx(AT_FDCWD, cString(name), statFlags, STATX_INO | STATX_MNT_ID, stat) !== 0) return undefined;
  const isRoot = (view.getBigUint64(8, true) & STATX_ATTR_MOUNT_ROOT) !== 0n;
  if (!isRoot) return undefined;
  return {
    device: device(view.getUint32(136, true), view.getUint32(140, true)),
    inode: view.getBigUint64(32, true),
    id: Number(view.getBigUint64(144, true)),
  };
}

/** As stat(2) says it. @see makedev(3) */
function device(major: number, minor: number): bigint {
  const [high, low] = [BigInt(major), BigInt(minor)];
  return low & 0xffn | (high & 0xfffn) << 8n | (low & ~0xffn) << 12n | (high & ~0xfffn) << 32n;
}

function isOurs(found: MountRoot | undefined, ours: MountRoot | undefined): boolean {
  return found !== undefined && (!ours || (found.device === ours.device && found.inode === ours.inode));
}

/** From its beginning. */
function readWhole(fd: number): string {
  const chunks: Uint8Array[] = [];
  let position = 0;
  for (;;) {
    const chunk = new Uint8Array(readBytes);
    const length = readSync(fd, chunk, 0, readBytes, position);
    if (length === 0) return Buffer.concat(chunks).toString();
    chunks.push(chunk.subarray(0, length));
    position += length;
  }
}

/** @returns Mount points by their ids, the latest last. @see proc_pid_mountinfo(5) */
function mountsOf(mountinfo: string): Map<number, string> {
  return new Map(
    mountinfo.split("\n").filter(Boolean).map((line) => {
      const [id, , , , target] = line.split(" ");
      const path = target!.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
      return [Number(id), path];
    }),
  );
}

/** Runs `work` with this thread in the container's mount namespace; its root as a descriptor. */
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
    // Had it ended before, its number might be another process's by now, and these another's namespace and root.
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

/** @param path Symlinks on the way lead where the container's own processes would come to; not so in `resolve`: `RESOLVE_NO_SYMLINKS`. */
function openInRoot(root: number, path: string, flags: number, resolve = 0n): number {
  const how = new Uint8Array(
    new BigUint64Array([BigInt(flags | O_CLOEXEC), 0n, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve]).buffer,
  );
  for (let attempt = 0;; attempt++) {
    try {
      return check("openat2", libc.openat2(root, cString(path), how, how.length));
    } catch (error) {
      // EAGAIN: something on the way was renamed just then. A container that does so without end gets its error.
      if (!(error instanceof SystemCallError && error.code === "EAGAIN" && attempt < 128)) throw error;
    }
  }
}

/** Opens the target, making what is missing on the way: as the container's root, for the container's filesystem may be idmapped and know no
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
  // Of this thread only. @see setfsuid(2)
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
