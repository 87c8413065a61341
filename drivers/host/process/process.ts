import { readFileSync } from "node:fs";
import { check, cString, cStringArray, errno, libc, SystemCallError } from "../ffi/libc.ts";

/** Processes, pipes and terminals by their file descriptors. Nothing here waits: `poll.ts` reports readiness. */

const O_RDWR = 2, O_NOCTTY = 0x100, O_CLOEXEC = 0x80000, O_NONBLOCK = 0x800;
const F_SETFL = 4, F_GETFL = 3, F_SETPIPE_SZ = 1031, F_GETPIPE_SZ = 1032;
const POSIX_SPAWN_SETSIGDEF = 0x04, POSIX_SPAWN_SETSIGMASK = 0x08, POSIX_SPAWN_SETSID = 0x80;
const TIOCSWINSZ = 0x5414, TIOCGPTN = 0x80045430, TIOCGPTPEER = 0x5441, TCGETS = 0x5401;
const ICANON = 2, VEOF = 4;
/** (gid_t) -1. @see chown(2) */
const keepGroup = 0xffffffff;
const WNOHANG = 1;
const POLLIN = 1, POLLHUP = 16;
const EAGAIN = 11, EINTR = 4, ECHILD = 10, EIO = 5, ESRCH = 3;
/** Sizes of glibc's opaque structs on 64-bit Linux, with a margin. */
const spawnActionsBytes = 128, spawnAttributesBytes = 512, signalSetBytes = 128;

export interface SpawnOptions {
  readonly file: string;
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly stdio: { readonly stdin: number; readonly stdout: number; readonly stderr: number };
  readonly cwd?: string;
  /** Becomes the process's descriptor 3. */
  readonly extra?: number;
  /** Path of a terminal to open as stdin, stdout and stderr; it becomes the controlling terminal. */
  readonly terminal?: string;
}

const emptySignals = new Uint8Array(signalSetBytes);
/** Not by sigfillset(3), which omits the two that glibc uses itself: posix_spawn(3) would make the child, and all that it executes, ignore those. */
const allSignals = new Uint8Array(signalSetBytes).fill(0xff);
libc.sigemptyset(emptySignals);

/** Starts a process in a session of its own, with default signals and only the given descriptors. It is a child: `waitPid` reaps it.
 * It inherits the calling thread's namespaces. @returns Its pid. @throws {SystemCallError} @see posix_spawn(3) */
export function spawnProcess(options: SpawnOptions): number {
  const { file, argv, environment, stdio, cwd, terminal } = options;
  const actions = new Uint8Array(spawnActionsBytes), attributes = new Uint8Array(spawnAttributesBytes);
  libc.posix_spawn_file_actions_init(actions);
  libc.posix_spawnattr_init(attributes);
  // glibc copies the paths of its actions.
  if (terminal !== undefined) {
    libc.posix_spawn_file_actions_addopen(actions, 0, cString(terminal), O_RDWR, 0);
    libc.posix_spawn_file_actions_adddup2(actions, 0, 1);
    libc.posix_spawn_file_actions_adddup2(actions, 0, 2);
  } else {
    libc.posix_spawn_file_actions_adddup2(actions, stdio.stdin, 0);
    libc.posix_spawn_file_actions_adddup2(actions, stdio.stdout, 1);
    libc.posix_spawn_file_actions_adddup2(actions, stdio.stderr, 2);
  }
  if (options.extra !== undefined) libc.posix_spawn_file_actions_adddup2(actions, options.extra, 3);
  if (cwd !== undefined) libc.posix_spawn_file_actions_addchdir_np(actions, cString(cwd));
  libc.posix_spawnattr_setsigmask(attributes, emptySignals);
  libc.posix_spawnattr_setsigdefault(attributes, allSignals);
  libc.posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const pid = new Int32Array(1);
  const words = cStringArray(argv);
  const variables = cStringArray(Object.entries(environment).map(([name, value]) => `${name}=${value}`));
  const failure = libc.posix_spawn(new Uint8Array(pid.buffer), cString(file), actions, attributes, words, variables);
  libc.posix_spawn_file_actions_destroy(actions);
  libc.posix_spawnattr_destroy(attributes);
  if (failure !== 0) throw new SystemCallError(`start ${file}`, failure);
  return pid[0]!;
}

export type ExitStatus = { readonly code: number; readonly signal?: undefined } | {
  readonly signal: number;
  readonly code?: undefined;
};

/** @returns How a child ended, or undefined while it runs. @throws {SystemCallError} ECHILD: not our child, or already reaped. */
export function waitPid(pid: number): ExitStatus | undefined {
  const status = new Int32Array(1);
  const reaped = check(`wait for process ${pid}`, libc.waitpid(pid, new Uint8Array(status.buffer), WNOHANG));
  return reaped === 0 ? undefined : statusOf(status[0]!);
}

/** @param status From wait(2). */
export function statusOf(status: number): ExitStatus {
  const signal = status & 0x7f;
  return signal === 0 ? { code: (status >> 8) & 0xff } : { signal };
}

/** Whether `pid` is a child of ours that is not reaped yet. */
export function isChild(pid: number): boolean {
  const information = new Uint8Array(128);
  const P_PID = 1, WEXITED = 4, WNOWAIT = 0x1000000;
  return Number(libc.waitid(P_PID, pid, information, WEXITED | WNOHANG | WNOWAIT)) === 0 || errno() !== ECHILD;
}

/** @returns The children of this process, running or not yet reaped, each with its program's name (the first 15 bytes).
 * @see proc_tid_children(5), proc_pid_stat(5) */
export function listChildren(): { readonly pid: number; readonly command: string }[] {
  // Orphans become children of the thread group's leader.
  const children = readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, "utf8").split(" ").filter(Boolean);
  return children.map(Number).flatMap((pid) => {
    try {
      const text = readFileSync(`/proc/${pid}/stat`, "utf8");
      return [{ pid, command: text.slice(text.indexOf("(") + 1, text.lastIndexOf(")")) }];
    } catch {
      return []; // reaped meanwhile
    }
  });
}

/** @returns The start time of a process, in ticks since boot, or undefined when there is none: a pid may be reused, a pid with its start time may
 * not.
 * @see proc_pid_stat(5); the second field may contain anything, so reading starts after the last parenthesis. */
export function startTicks(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** @returns Whether a child of ours, perhaps dead and not reaped, has executed a program since it was forked.
 * @see proc_pid_stat(5), field 9: flags; PF_FORKNOEXEC in include/linux/sched.h */
export function hasExecuted(pid: number): boolean {
  const PF_FORKNOEXEC = 0x40;
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const flags = Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[6]);
  return (flags & PF_FORKNOEXEC) === 0;
}

export function openPidfd(pid: number): number {
  return check(`open process ${pid}`, libc.pidfd_open(pid, 0));
}

/** @returns Whether the process still existed. @see pidfd_send_signal(2) */
export function sendSignal(pidfd: number, signal: number): boolean {
  if (libc.pidfd_send_signal(pidfd, signal, null, 0) === 0) return true;
  const number = errno();
  if (number === ESRCH) return false;
  throw new SystemCallError(`send signal ${signal}`, number);
}

/** @param options.sizeBytes Capacity; the kernel rounds it up to pages and limits it for users other than root. */
export function makePipe(options: { sizeBytes?: number } = {}): { readonly read: number; readonly write: number } {
  const fds = new Int32Array(2);
  check("make a pipe", libc.pipe2(new Uint8Array(fds.buffer), O_CLOEXEC));
  if (options.sizeBytes !== undefined) libc.fcntl(fds[1]!, F_SETPIPE_SZ, options.sizeBytes);
  return { read: fds[0]!, write: fds[1]! };
}

/** Makes a host user the owner of both ends of a pipe, so that the user's processes can open it by name, as /dev/stderr. @see pipe(7), fchown(2) */
export function ownPipe(fd: number, uid: number, gid: number): void {
  check("change the owner of a pipe", libc.fchown(fd, uid, gid));
}

/** @param fd The write end of a pipe. @returns A new read end, which does not block; the caller closes it. @see proc_pid_fd(5) */
export function openReadEnd(fd: number): number {
  return check("open a pipe", libc.open(cString(`/proc/self/fd/${fd}`), O_NONBLOCK | O_CLOEXEC, 0));
}

/** @returns The capacity of a pipe in bytes, or undefined when `fd` is no pipe. */
export function pipeCapacity(fd: number): number | undefined {
  const size = Number(libc.fcntl(fd, F_GETPIPE_SZ, 0));
  return size > 0 ? size : undefined;
}

/** Opens a pseudo-terminal of the host. @returns Its master, and the path of its other end. @see pty(7) */
export function openPty(size: { width: number; height: number }): { readonly master: number; readonly path: string } {
  const master = check("open a pty", libc.posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  try {
    check("grant a pty", libc.grantpt(master));
    check("unlock a pty", libc.unlockpt(master));
    const name = new Uint8Array(64);
    check("name a pty", libc.ptsname_r(master, name, name.length));
    setWindowSize(master, size);
    return { master, path: new TextDecoder().decode(name.subarray(0, name.indexOf(0))) };
  } catch (error) {
    libc.close(master);
    throw error;
  }
}

/** @param master Of a pseudo-terminal of the host. @returns A descriptor of its other end, which does not become a controlling terminal. */
export function openPtyPeer(master: number): number {
  const number = new Uint32Array(1);
  check("find a pty", libc.ioctl(master, TIOCGPTN, new Uint8Array(number.buffer)));
  const path = `/dev/pts/${number[0]!}`;
  return check(`open ${path}`, libc.open(cString(path), O_RDWR | O_NOCTTY | O_CLOEXEC, 0));
}

/** Makes a host user the owner of a pseudo-terminal's other end, whichever devpts it belongs to. @see TIOCGPTPEER(2const) */
export function ownPtyPeer(master: number, uid: number): void {
  const flags = O_RDWR | O_NOCTTY | O_CLOEXEC;
  const peer = check("open the other end of a pty", libc.ioctlNumber(master, TIOCGPTPEER, flags));
  try {
    check("change the owner of a pty", libc.fchown(peer, uid, keepGroup));
  } finally {
    libc.close(peer);
  }
}

/** @param size In characters, 1 to 65535. @see TIOCSWINSZ(2const) */
export function setWindowSize(fd: number, size: { width: number; height: number }): void {
  const window = new Uint16Array([size.height, size.width, 0, 0]);
  check("set the window size", libc.ioctl(fd, TIOCSWINSZ, new Uint8Array(window.buffer)));
}

/** @param fd Master of a pty. @returns The character that ends input for the reader of the other end, or undefined if that end is in raw mode.
 * @see termios(3), tty_ioctl(4) */
export function endOfInputCharacter(fd: number): number | undefined {
  // The kernel's struct termios: four 32-bit flags, the line discipline, 19 characters.
  const settings = new Uint8Array(64);
  check("read terminal settings", libc.ioctl(fd, TCGETS, settings));
  const isLineMode = (new DataView(settings.buffer).getUint32(12, true) & ICANON) !== 0;
  const character = settings[17 + VEOF]!;
  return isLineMode && character !== 0 ? character : undefined;
}

export function setNonBlocking(fd: number): void {
  const flags = check("read fd flags", libc.fcntl(fd, F_GETFL, 0));
  check("set fd flags", libc.fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

/** @returns Another descriptor of the same open file. */
export function duplicateFd(fd: number): number {
  const F_DUPFD_CLOEXEC = 1030;
  return check("duplicate a descriptor", libc.fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

export function closeFd(fd: number): void {
  libc.close(fd);
}

/** Nothing to read, or no space to write, just now. */
export const again = Symbol("again");

/** @returns Bytes read, 0 at the end (for a pty: when its other end is closed), or `again`. */
export function readFd(fd: number, buffer: Uint8Array): number | typeof again {
  const count = Number(libc.read(fd, buffer, buffer.length));
  if (count >= 0) return count;
  const number = errno();
  if (number === EAGAIN || number === EINTR) return again;
  if (number === EIO) return 0;
  throw new SystemCallError("read", number);
}

/** @returns Bytes written, or `again`. @throws {SystemCallError} EPIPE when the reader has gone. */
export function writeFd(fd: number, buffer: Uint8Array): number | typeof again {
  const count = Number(libc.write(fd, buffer, buffer.length));
  if (count >= 0) return count;
  const number = errno();
  if (number === EAGAIN || number === EINTR) return again;
  throw new SystemCallError("write", number);
}

/** The current state: whether there are bytes to read, and whether every writer is gone. */
export function peek(fd: number): { readable: boolean; hungUp: boolean } {
  const entry = new Uint8Array(8);
  const view = new DataView(entry.buffer);
  view.setInt32(0, fd, true);
  view.setInt16(4, POLLIN, true);
  libc.poll(entry, 1, 0);
  const events = view.getInt16(6, true);
  return { readable: (events & POLLIN) !== 0, hungUp: (events & POLLHUP) !== 0 };
}

/** Makes this process the parent of its children's orphans: containers and commands whose starter has ended.
 * @see PR_SET_CHILD_SUBREAPER(2const) */
export function becomeSubreaper(): void {
  const PR_SET_CHILD_SUBREAPER = 36;
  check("become a subreaper", libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
}
