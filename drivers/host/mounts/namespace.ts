import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { joinNamespace } from "./join_namespace.ts";
import { check, cString, errno, libc, SystemCallError } from "../ffi/libc.ts";
import { parseMountInfo } from "./mounts.ts";

const CLONE_FS = 0x200, CLONE_NEWNS = 0x20000;
const MS_RDONLY = 1, MS_REMOUNT = 0x20, MS_BIND = 0x1000, MS_REC = 0x4000, MS_SLAVE = 1 << 19, MNT_DETACH = 2;
const O_CLOEXEC = 0x80000;
const OPEN_TREE_CLONE = 1;
const EINVAL = 22, ENOENT = 2;
const MOVE_MOUNT_F_EMPTY_PATH = 4, AT_FDCWD = -100;

export interface NamespaceView {
  /** Paths to keep: with the mounts on the way to them, and no other mounts but the system's own. A mount copied into the namespace would keep
   * its device busy after the host unmounted it, be it ours, another daemon's or any other. */
  readonly needed: readonly string[];
  /** A mount to be replaced by an empty ramfs; `graft` puts a part of it back. */
  readonly emptied?: string;
  /** A file that cannot be written through the namespace. */
  readonly readonly?: string;
}

/** A mount namespace of our own beside the host's. It receives the host's mounts (slave). Mounts made in it vanish when the daemon ends,
 * however it ends: idmapped root filesystems are there. Only processes started inside `enter` run in it. */
export class MountNamespace {
  readonly stage: string;
  readonly #host: number;
  readonly #own: number;

  /** @param stage A directory of the host over which an empty ramfs is mounted in the namespace. Anybody may pass through: a container's root,
   * unprivileged on the host, reaches its mounts there, wherever the daemon's own directory is. */
  constructor(stage: string, view: NamespaceView) {
    this.stage = stage;
    check("unshare(CLONE_FS)", libc.unshare(CLONE_FS));
    this.#host = openNamespace();
    check("unshare(CLONE_NEWNS)", libc.unshare(CLONE_NEWNS));
    try {
      check("make / a slave mount", libc.mount(cString("none"), cString("/"), null, MS_REC | MS_SLAVE, null));
      for (const path of mountsBeside(view.needed)) hide(path);
      mountEmpty(stage);
      if (view.emptied !== undefined) {
        hide(view.emptied);
        mountEmpty(view.emptied);
      }
      if (view.readonly !== undefined) bindReadonly(view.readonly);
      this.#own = openNamespace();
    } finally {
      joinNamespace(this.#host, "return to the host's mount namespace");
    }
  }

  /** Runs `work` with this thread inside; processes started by it stay inside. `work` must not await: the event loop belongs to the host's side. */
  enter<T>(work: () => T): T {
    joinNamespace(this.#own, "enter the mount namespace");
    try {
      return work();
    } finally {
      joinNamespace(this.#host, "return to the host's mount namespace");
    }
  }

  /** Makes a host directory inside an emptied mount visible in the namespace, at its own path. */
  graft(directory: string): void {
    const part = check(`open ${directory}`, libc.open_tree(AT_FDCWD, cString(directory), OPEN_TREE_CLONE | O_CLOEXEC));
    try {
      this.enter(() => {
        mkdirSync(directory, { recursive: true });
        moveMount(part, directory);
      });
    } finally {
      libc.close(part);
    }
  }

  close(): void {
    libc.close(this.#own);
    libc.close(this.#host);
  }
}

function mountEmpty(path: string): void {
  // A ramfs reports no size: `df` in a container omits mounts made from here, such as its boot id.
  check(`mount ${path}`, libc.mount(cString("none"), cString(path), cString("ramfs"), 0, cString("mode=0711")));
}

function bindReadonly(path: string): void {
  const file = cString(path);
  check(`bind ${path}`, libc.mount(file, file, null, MS_BIND, null));
  check(`make ${path} read-only`, libc.mount(cString("none"), file, null, MS_BIND | MS_REMOUNT | MS_RDONLY, null));
}

/** Directories that programs need from the system, whatever they are mounted from. */
const systemTrees = ["/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr"];

/** @returns Mount points that are not on the way to any of `needed`, the innermost first. */
function mountsBeside(needed: readonly string[]): string[] {
  const targets = parseMountInfo(readFileSync("/proc/thread-self/mountinfo", "utf8")).map(({ target }) => target);
  const isWithin = (path: string, tree: string) => tree === "/" || path === tree || path.startsWith(`${tree}/`);
  return targets.filter((target) =>
    !needed.some((path) => isWithin(path, target)) && !systemTrees.some((tree) => isWithin(target, tree))
  ).reverse();
}

/** A mount covered by another one cannot be unmounted (EINVAL, ENOENT), but is not visible either. */
function hide(path: string): void {
  if (libc.umount2(cString(path), MNT_DETACH) === 0) return;
  const number = errno();
  if (number !== EINVAL && number !== ENOENT) throw new SystemCallError(`hide ${path}`, number);
}

function openNamespace(): number {
  return check("open the mount namespace", libc.open(cString("/proc/thread-self/ns/mnt"), O_CLOEXEC, 0));
}

/** Attaches a detached tree (`cloneMount`) at `target`; the caller closes it. @see move_mount(2) */
export function moveMount(tree: number, target: string): void {
  check(`move_mount ${target}`, libc.move_mount(tree, cString(""), AT_FDCWD, cString(target), MOVE_MOUNT_F_EMPTY_PATH));
}

/** To be called inside a namespace of ours: mounts fusectl, which controls FUSE filesystems, at `path` if it is not there. @returns `path`. */
export function mountControl(path: string): string {
  if (existsSync(path)) return path;
  mkdirSync(path, { mode: 0o700 });
  check(`mount ${path}`, libc.mount(cString("none"), cString(path), cString("fusectl"), 0, null));
  return path;
}

/** Unmounts the uppermost mount at `target`, even if it is in use; no mount there is no error. */
export function dropMount(target: string): void {
  libc.umount2(cString(target), MNT_DETACH);
}
