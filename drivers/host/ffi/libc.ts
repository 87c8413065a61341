/** The C library, as one table for both runtimes: `bun:ffi` in the compiled executable, `Deno.dlopen` elsewhere. Only this file
 * knows which one it is. Functions are called on the calling thread and block it; calls that may block long belong on a worker.
 *
 * Argument codes: `i` int, `u` unsigned int, `l` int64, `L` uint64/size_t, `p` buffer (`Uint8Array | null`), `P` raw pointer as a number
 * or bigint. Results of `l` may be number or bigint: wrap them in Number(). */

// deno-lint-ignore no-explicit-any -- the shape of a foreign function is known to the table below, not to the type checker
export type ForeignFunction = (...args: any[]) => any;

const table = {
  accept4: "ippi:i",
  bind: "ipi:i",
  chdir: "p:i",
  close: "i:i",
  connect: "ipi:i",
  epoll_create1: "i:i",
  epoll_ctl: "iiip:i",
  epoll_wait: "ipii:i",
  eventfd: "ui:i",
  fallocate: "iill:i",
  fanotify_init: "uu:i",
  fanotify_mark: "iuLip:i",
  fchdir: "i:i",
  fchmod: "iu:i",
  fchown: "iuu:i",
  fchownat: "ipuui:i",
  fcntl: "iii:i",
  fdopendir: "i:P",
  flock: "ii:i",
  fsync: "i:i",
  ftruncate: "il:i",
  getdents64: "ipL:l",
  getsockopt: "iiipp:i",
  grantpt: "i:i",
  ioctl: "iLp:i",
  kill: "ii:i",
  linkat: "ipipi:i",
  listen: "ii:i",
  lgetxattr: "pppL:l",
  llistxattr: "ppL:l",
  lremovexattr: "pp:i",
  lsetxattr: "pppLi:i",
  memfd_create: "pu:i",
  mkdirat: "ipu:i",
  mknod: "puL:i",
  mount: "pppLp:i",
  open: "pii:i",
  open_by_handle_at: "ipi:i",
  openat: "ipii:i",
  pipe2: "pi:i",
  poll: "pLi:i",
  posix_openpt: "i:i",
  posix_spawn: "pppppp:i",
  posix_spawn_file_actions_addchdir_np: "pp:i",
  posix_spawn_file_actions_adddup2: "pii:i",
  posix_spawn_file_actions_addopen: "pipii:i",
  posix_spawn_file_actions_destroy: "p:i",
  posix_spawn_file_actions_init: "p:i",
  posix_spawnattr_destroy: "p:i",
  posix_spawnattr_init: "p:i",
  posix_spawnattr_setflags: "pi:i",
  posix_spawnattr_setsigdefault: "pp:i",
  posix_spawnattr_setsigmask: "pp:i",
  prctl: "iLLLL:i",
  prlimit: "iipp:i",
  ptrace: "iiLL:l",
  ptsname_r: "ipL:i",
  read: "ipL:l",
  recvmsg: "ipi:l",
  renameat2: "ipipu:i",
  sendmsg: "ipi:l",
  setfsgid: "u:i",
  setfsuid: "u:i",
  setns: "ii:i",
  setsockopt: "iiipu:i",
  sigemptyset: "p:i",
  socket: "iii:i",
  socketpair: "iiip:i",
  statx: "ipiup:i",
  syncfs: "i:i",
  umount2: "pi:i",
  unlinkat: "ipi:i",
  unlockpt: "i:i",
  unshare: "i:i",
  waitid: "iipi:i",
  waitpid: "ipi:i",
  write: "ipL:l",
} as const;

/** System calls that glibc 2.36 has no wrapper for; the number comes first and is filled in here (from 424 on the same on x86_64 and aarch64). */
const syscalls = {
  /** int bpf(int cmd, union bpf_attr *attr, unsigned size) */
  bpf: { number: process.arch === "arm64" ? 280 : 321, args: "ipu" },
  /** int pidfd_send_signal(int pidfd, int sig, siginfo_t *info, unsigned flags) */
  pidfd_send_signal: { number: 424, args: "iipu" },
  /** int open_tree(int dirfd, const char *path, unsigned flags) */
  open_tree: { number: 428, args: "ipu" },
  /** int move_mount(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags) */
  move_mount: { number: 429, args: "ipipu" },
  /** int pidfd_open(pid_t pid, unsigned flags) */
  pidfd_open: { number: 434, args: "iu" },
  /** int close_range(unsigned first, unsigned last, unsigned flags) */
  close_range: { number: 436, args: "uuu" },
  /** int openat2(int dirfd, const char *path, struct open_how *how, size_t size) */
  openat2: { number: 437, args: "ippL" },
  /** int mount_setattr(int dirfd, const char *path, unsigned flags, struct mount_attr *attr, size_t size) */
  mount_setattr: { number: 442, args: "ipupL" },
  /** int quotactl_fd(unsigned fd, unsigned cmd, qid_t id, void *addr) */
  quotactl_fd: { number: 443, args: "iuup" },
  /** int file_getattr(int dirfd, const char *path, struct file_attr *attr, size_t size, unsigned flags); from Linux 6.17 on */
  file_getattr: { number: 468, args: "ippLu" },
  /** int file_setattr(int dirfd, const char *path, struct file_attr *attr, size_t size, unsigned flags); from Linux 6.17 on */
  file_setattr: { number: 469, args: "ippLu" },
} as const;

/** Second signatures of functions: `of` is the library's name. */
const variants = {
  /** int ioctl(int fd, unsigned long op, unsigned long argument), where the argument is a number. */
  ioctlNumber: { of: "ioctl", code: "iLL:i" },
} as const;

export type Libc = Record<keyof typeof table | keyof typeof syscalls | keyof typeof variants, ForeignFunction>;

interface Library {
  symbols: Libc;
  /** The address of a buffer's first byte; the caller keeps the buffer alive. */
  addressOf(buffer: Uint8Array): bigint;
  errno(): number;
}

export const isBun = "Bun" in globalThis;

/** For this thread, whose `errno` stays at one address: looking it up again would give the runtime's own system calls time to change it. */
async function load(): Promise<Library> {
  const symbols: Record<string, ForeignFunction> = {};
  const wrap = (raw: Record<string, ForeignFunction>) => {
    for (const name of [...Object.keys(table), ...Object.keys(variants)]) symbols[name] = raw[name]!;
    for (const [name, { number }] of Object.entries(syscalls)) {
      const call = raw[name]!;
      symbols[name] = (...args) => Number(call(isBun ? number : BigInt(number), ...args));
    }
  };
  if (isBun) {
    const { dlopen, ptr, read } = await import("bun" + ":ffi");
    const types: Record<string, string> = { i: "i32", u: "u32", l: "i64_fast", L: "u64_fast", p: "ptr", P: "ptr" };
    const declare = (code: string) => {
      const [args, result] = code.split(":") as [string, string];
      return { args: [...args].map((c) => types[c]), returns: types[result] };
    };
    const plain = dlopen("libc.so.6", {
      ...Object.fromEntries(Object.entries(table).map(([name, code]) => [name, declare(code)])),
      __errno_location: declare(":P"),
    }).symbols;
    const raw = { ...plain };
    for (const [name, { args }] of Object.entries(syscalls)) {
      raw[name] = dlopen("libc.so.6", { syscall: declare(`l${args}:l`) }).symbols.syscall;
    }
    for (const [name, { of, code }] of Object.entries(variants)) {
      raw[name] = dlopen("libc.so.6", { [of]: declare(code) }).symbols[of];
    }
    wrap(raw);
    const errnoAt = plain.__errno_location();
    return {
      symbols: symbols as Libc,
      addressOf: (buffer) => BigInt(ptr(buffer)),
      errno: () => read.i32(errnoAt, 0),
    };
  }
  // deno-lint-ignore no-explicit-any -- Deno's FFI types want literal symbol tables; ours is computed
  const { dlopen, UnsafePointer, UnsafePointerView } = (globalThis as any).Deno;
  const types: Record<string, string> = { i: "i32", u: "u32", l: "i64", L: "usize", p: "buffer", P: "pointer" };
  const declare = (code: string, name?: string) => {
    const [args, result] = code.split(":") as [string, string];
    return { name, parameters: [...args].map((c) => types[c]), result: types[result] };
  };
  const library = dlopen("libc.so.6", {
    ...Object.fromEntries(Object.entries(table).map(([name, code]) => [name, declare(code, name)])),
    ...Object.fromEntries(
      Object.entries(syscalls).map(([name, { args }]) => [name, declare(`l${args}:l`, "syscall")]),
    ),
    ...Object.fromEntries(Object.entries(variants).map(([name, { of, code }]) => [name, declare(code, of)])),
    __errno_location: declare(":P", "__errno_location"),
  });
  // Deno requires bigint for 64-bit arguments; callers may pass either.
  const codes: Record<string, string> = { ...table };
  for (const [name, { args }] of Object.entries(syscalls)) codes[name] = `l${args}:l`;
  for (const [name, { code }] of Object.entries(variants)) codes[name] = code;
  const raw: Record<string, ForeignFunction> = {};
  for (const [name, code] of Object.entries(codes)) {
    const call = library.symbols[name];
    const wide = [...code.split(":")[0]!].flatMap((c, index) => (c === "l" || c === "L" ? [index] : []));
    raw[name] = wide.length === 0 ? call : (...args) => {
      for (const index of wide) args[index] = BigInt(args[index]);
      return call(...args);
    };
  }
  wrap(raw);
  const errnoView = new UnsafePointerView(library.symbols.__errno_location());
  return {
    symbols: symbols as Libc,
    addressOf: (buffer) => UnsafePointer.value(UnsafePointer.of(buffer)),
    errno: () => errnoView.getInt32(),
  };
}

const library = await load();
export const libc: Libc = library.symbols;
export const addressOf = library.addressOf;
export const errno = library.errno;

const encoder = new TextEncoder();

/** A NUL-terminated copy of `text`.
 * @throws {TypeError} If `text` contains a NUL: it would be cut there. */
export function cString(text: string): Uint8Array {
  if (text.includes("\0")) throw new TypeError("a string for the kernel must not hold a NUL byte");
  return encoder.encode(text + "\0");
}

/** `char *[]` with its terminating NULL. The strings live as long as the returned buffer is referenced. */
export function cStringArray(texts: readonly string[]): Uint8Array {
  const strings = texts.map(cString);
  const pointers = new BigUint64Array(texts.length + 1);
  strings.forEach((string, index) => pointers[index] = addressOf(string));
  const bytes = new Uint8Array(pointers.buffer);
  kept.set(bytes, strings);
  return bytes;
}
const kept = new WeakMap<Uint8Array, Uint8Array[]>();

/** A failed system call. `errno` is the kernel's number, `code` its name as node spells it (`ENOENT`). */
export class SystemCallError extends Error {
  override name = "SystemCallError";
  readonly errno: number;
  readonly code: string;

  constructor(call: string, number: number) {
    const code = errnoNames[number] ?? `errno ${number}`;
    super(`${call}: ${code}`);
    this.errno = number;
    this.code = code;
  }
}

/** Returns a non-negative result.
 * @throws {SystemCallError} If `result` is negative; errno is read at once, so wrap the call itself. */
export function check(call: string, result: number | bigint): number {
  const value = Number(result);
  if (value < 0) throw new SystemCallError(call, errno());
  return value;
}

const { errno: errnoByName } = (await import("node:os")).constants;
/** Where a number has two names, the alphabetically first is used: EAGAIN, not EWOULDBLOCK. */
const errnoNames: Record<number, string> = Object.fromEntries(
  Object.entries(errnoByName).sort().reverse().map(([name, number]) => [number, name]),
);
