/** The thread of `hot_plug.ts`: enters a container's mount namespace and attaches or detaches one mount there. The target is resolved beneath
 * the container's root by openat2(RESOLVE_IN_ROOT | NO_SYMLINKS): a symlink that the container plants leads nowhere. */

export type HotPlugRequest =
  | {
    readonly kind: "attach";
    readonly pid: number;
    /** A detached mount of ours. */
    readonly tree: number;
    readonly target: string;
    readonly isDirectory: boolean;
    /** The container's root on the host: what is made on the way to the target is its. */
    readonly uid: number;
    readonly gid: number;
  }
  | { readonly kind: "detach"; readonly pid: number; readonly target: string; readonly lazy: boolean };

export interface HotPlugAnswer {
  /** Name of the errno; absent when it was done. */
  readonly code?: string;
}

const CLONE_FS = 0x200, CLONE_NEWNS = 0x20000;
const O_PATH = 0x200000,
  O_DIRECTORY = 0x10000,
  O_CLOEXEC = 0x80000,
  O_NOFOLLOW = 0x20000,
  O_CREAT = 0x40,
  O_EXCL = 0x80;
const RESOLVE_NO_MAGICLINKS = 0x02n, RESOLVE_NO_SYMLINKS = 0x04n, RESOLVE_IN_ROOT = 0x10n;
const MOVE_MOUNT_F_EMPTY_PATH = 4, MOVE_MOUNT_T_EMPTY_PATH = 0x40;
const MNT_DETACH = 2, UMOUNT_NOFOLLOW = 8;

type Libc = typeof import("./libc.ts");
const thread = self as unknown as {
  onmessage: (message: MessageEvent<HotPlugRequest>) => void;
  postMessage(data: HotPlugAnswer): void;
};

thread.onmessage = async ({ data }) => {
  // Loaded only now: libc is there after an await, and a message that comes before `onmessage` is set would be lost.
  const libc = await import("./libc.ts");
  try {
    if (data.kind === "attach") attach(libc, data);
    else detach(libc, data);
    thread.postMessage({});
  } catch (error) {
    thread.postMessage({ code: error instanceof libc.SystemCallError ? error.code : String(error) });
  }
};

function attach(c: Libc, request: Extract<HotPlugRequest, { kind: "attach" }>): void {
  inside(c, request.pid, (root) => {
    const target = makeTarget(c, root, request);
    try {
      const flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
      c.check("move_mount", c.libc.move_mount(request.tree, c.cString(""), target, c.cString(""), flags));
    } finally {
      c.libc.close(target);
    }
  });
}

/** Nothing may hold the mount while it goes, a descriptor of ours included. So the thread's working directory becomes the target's parent, which is
 * resolved beneath the root, and the last part is unmounted by its name without following it. */
function detach(c: Libc, request: Extract<HotPlugRequest, { kind: "detach" }>): void {
  inside(c, request.pid, (root) => {
    const parts = request.target.split("/").filter(Boolean);
    const last = parts.pop() ?? ".";
    const parent = openInRoot(c, root, `/${parts.join("/")}`, O_PATH | O_DIRECTORY);
    try {
      c.check("fchdir", c.libc.fchdir(parent));
      c.check("umount", c.libc.umount2(c.cString(last), UMOUNT_NOFOLLOW | (request.lazy ? MNT_DETACH : 0)));
    } finally {
      c.libc.close(parent);
    }
  });
}

/** Runs `work` with this thread in the container's mount namespace; its root as a descriptor. */
function inside(c: Libc, pid: number, work: (root: number) => void): void {
  const own = c.check("open", c.libc.open(c.cString("/proc/thread-self/ns/mnt"), O_CLOEXEC, 0));
  const theirs = c.check("open", c.libc.open(c.cString(`/proc/${pid}/ns/mnt`), O_CLOEXEC, 0));
  const root = c.check("open", c.libc.open(c.cString(`/proc/${pid}/root`), O_PATH | O_DIRECTORY | O_CLOEXEC, 0));
  c.check("unshare", c.libc.unshare(CLONE_FS));
  c.check("setns", c.libc.setns(theirs, CLONE_NEWNS));
  try {
    work(root);
  } finally {
    c.check("setns", c.libc.setns(own, CLONE_NEWNS));
    for (const fd of [own, theirs, root]) c.libc.close(fd);
  }
}

function openInRoot(c: Libc, root: number, path: string, flags: number): number {
  const how = new Uint8Array(
    new BigUint64Array([BigInt(flags | O_CLOEXEC), 0n, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS])
      .buffer,
  );
  for (let attempt = 0;; attempt++) {
    try {
      return c.check("openat2", c.libc.openat2(root, c.cString(path), how, how.length));
    } catch (error) {
      // EAGAIN: something on the way was renamed just then. A container that does so without end gets its error.
      if (!(error instanceof c.SystemCallError && error.code === "EAGAIN" && attempt < 128)) throw error;
    }
  }
}

/** Opens the target, making what is missing on the way: as the container's root, for the container's filesystem may be idmapped and know no
 * other owner. */
function makeTarget(c: Libc, root: number, request: Extract<HotPlugRequest, { kind: "attach" }>): number {
  const parts = request.target.split("/").filter(Boolean);
  for (let depth = 1; depth < parts.length || (depth === parts.length && request.isDirectory); depth++) {
    make(c, root, parts.slice(0, depth), request, (parent, name) => c.libc.mkdirat(parent, name, 0o755));
  }
  if (!request.isDirectory) {
    make(c, root, parts, request, (parent, name) => {
      const fd = Number(c.libc.openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o644));
      if (fd >= 0) c.libc.close(fd);
      return fd;
    });
  }
  return openInRoot(c, root, request.target, O_PATH | (request.isDirectory ? O_DIRECTORY : 0));
}

function make(
  c: Libc,
  root: number,
  parts: readonly string[],
  owner: { uid: number; gid: number },
  create: (parent: number, name: Uint8Array) => number,
): void {
  const path = `/${parts.join("/")}`;
  try {
    c.libc.close(openInRoot(c, root, path, O_PATH | O_NOFOLLOW));
    return;
  } catch (error) {
    if (!(error instanceof c.SystemCallError && error.code === "ENOENT")) throw error;
  }
  const parent = openInRoot(c, root, `/${parts.slice(0, -1).join("/")}`, O_PATH | O_DIRECTORY);
  // Of this thread only. @see setfsuid(2)
  c.libc.setfsgid(owner.gid);
  c.libc.setfsuid(owner.uid);
  try {
    c.check("create", create(parent, c.cString(parts.at(-1)!)));
  } finally {
    c.libc.setfsuid(0);
    c.libc.setfsgid(0);
    c.libc.close(parent);
  }
}
