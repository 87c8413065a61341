/** Runs host tools on data shaped by a container or an archive: in a root filesystem of their own that holds the given trees, the host's programs
 * read-only and nothing else, without network, other processes, and capabilities that they do not need. A symbolic link cannot lead out of
 * a tree, and a tool exploited by its input can reach nothing else.
 *
 * The root is made by bubblewrap, which adds 2 ms to the bare tool (0.7 ms of them for namespaces: pid, IPC, host name, cgroup and network).
 * @see bwrap(1) */
import { existsSync, lstatSync, readFileSync, readlinkSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { openFilter } from "./forbidden_calls.ts";
import type { Confinement } from "../host.ts";
import { check, cString, libc } from "../ffi/libc.ts";
import { isChild, startTicks, waitPid } from "../process/process.ts";

/** The command to start in place of a tool. */
export interface Launch {
  readonly argv: readonly string[];
  /** Descriptors to inherit, from 3 on. */
  readonly descriptors: readonly number[];
  /** To be called as soon as the process is started. */
  started(pid: number | undefined): void;
  /** Closes the descriptors opened for it. */
  close(): void;
}

const memoryBytesDefault = 4 * 1024 ** 3;
const O_PATH = 0x200000, O_CLOEXEC = 0x80000;
const reapEveryMs = 1_000;
/** After stdin, stdout and stderr. */
const firstDescriptor = 3;

/** @param tool Absolute path. @throws {SystemCallError} ENOENT and the like when a tree is missing. */
export function boxed(tool: string, argv: readonly string[], confinement: Confinement): Launch {
  const {
    reads = {},
    writes = {},
    devices = [],
    hasProc = devices.length > 0,
    capabilities = [],
    memoryBytes = memoryBytesDefault,
  } = confinement;
  const descriptors: number[] = [];
  const close = () => descriptors.splice(0).forEach((fd) => void libc.close(fd));
  const words: string[] = [];
  const give = (fd: number) => String(firstDescriptor + descriptors.push(fd) - 1);
  try {
    const places = [
      ...Object.entries(reads).map(([at, path]) => ({ at, path, option: "--ro-bind-fd" })),
      ...Object.entries(writes).map(([at, path]) => ({ at, path, option: "--bind-fd" })),
    ];
    // A place within another one must come after it.
    for (const { at, path, option } of places.sort((one, other) => one.at < other.at ? -1 : 1)) {
      words.push(option, give(openPlace(path)), at);
    }
    // Tools that write to devices first check there whether they are mounted, and need /dev/null. Read-only, because it holds the host's settings,
    // which belong to root with capabilities or without.
    if (hasProc) words.push("--proc", "/proc", "--remount-ro", "/proc", "--dev-bind", "/dev/null", "/dev/null");
    for (const device of devices) words.push("--dev-bind", device, device);
    words.push("--seccomp", give(openFilter()));
  } catch (error) {
    close();
    throw error;
  }
  const allowed = capabilities.flatMap((capability) => ["--cap-add", capability]);
  return {
    argv: ["bwrap", ...surroundings(), ...words, "--cap-drop", "ALL", ...allowed, "--", tool, ...argv.slice(1)],
    descriptors,
    started: (pid) => limit(pid, memoryBytes),
    close,
  };
}

/** bwrap compares the directory that it mounts with this descriptor: one that has been put in its place is refused. */
function openPlace(path: string): number {
  return check(`open "${path}"`, libc.open(cString(path), O_PATH | O_CLOEXEC, 0));
}

let common: readonly string[] | undefined;

/** The part that all confinements share: namespaces, and the programs with their libraries. */
function surroundings(): readonly string[] {
  if (common) return common;
  // Our own descriptors are close-on-exec; those inherited from our starter become so here.
  const CLOSE_RANGE_CLOEXEC = 4;
  libc.close_range(firstDescriptor, 0xffff_ffff, CLOSE_RANGE_CLOEXEC);
  return common = [
    "--die-with-parent",
    "--unshare-pid",
    "--as-pid-1",
    "--unshare-net",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup",
    ...programs(),
    "--chdir",
    "/",
  ];
}

function programs(): string[] {
  const words = ["--ro-bind", "/usr", "/usr"];
  for (const path of ["/bin", "/sbin", "/lib", "/lib32", "/lib64"]) {
    if (!existsSync(path)) continue;
    // Links into /usr, or directories on hosts that were never merged.
    if (lstatSync(path).isSymbolicLink()) words.push("--symlink", readlinkSync(path), path);
    else words.push("--ro-bind", path, path);
  }
  // Tells which attributes of files are permissions, and so not copied twice. @see attr_copy_file(3)
  return existsSync("/etc/xattr.conf") ? [...words, "--ro-bind", "/etc/xattr.conf", "/etc/xattr.conf"] : words;
}

/** The process that does the work: the child of the sandbox's outer process, if that has started it already. */
export function workerOf(pid: number): number {
  const [child] = childrenOf(pid);
  return child ?? pid;
}

/** Kills a sandbox with its tool. A sandbox killed while it is being made would leave a child that waits for it for ever and holds the tool's pipes,
 * so the children are killed first. For that the sandbox must be stopped, to start no more of them; a stop during clone(2) waits for the end of the
 * call, which shows only in /proc.
 * @param hasEnded Whether it was reaped, so that its pid may be another's. */
export async function killSandbox(pid: number, hasEnded: () => boolean): Promise<void> {
  try {
    process.kill(pid, "SIGSTOP");
    while (!isStopped(pid)) {
      await delay(1);
      if (hasEnded()) return;
    }
    const children = childrenOf(pid).map((child) => ({ child, ticks: startTicks(child) }));
    for (const { child } of children) process.kill(child, "SIGKILL");
    process.kill(pid, "SIGKILL");
    await Promise.all(children.map(({ child, ticks }) => reapInherited(child, ticks)));
  } catch { /* it has ended */ }
}

/** Reaps a killed process whose parent was killed, too: it becomes a child of ours, the subreaper, when the parent has ended. Waits as long as the
 * process is stuck in the kernel. */
async function reapInherited(pid: number, ticks: string | undefined): Promise<void> {
  for (let waitMs = 1;; waitMs = Math.min(2 * waitMs, reapEveryMs)) {
    if (isChild(pid)) {
      if (waitPid(pid)) return;
    } else {
      const now = startTicks(pid);
      if (!existsSync(`/proc/${pid}`) || now !== undefined && now !== ticks) return;
    }
    await delay(waitMs, undefined, { ref: false });
  }
}

/** @see proc_pid_stat(5), field 3 */
function isStopped(pid: number): boolean {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  return "TtZX".includes(text.charAt(text.lastIndexOf(")") + 2));
}

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean).map(Number);
}

/** Limits a process and its children: later children inherit the limit, earlier ones are listed and limited, too. @see prlimit(2) */
function limit(pid: number | undefined, memoryBytes: number): void {
  const RLIMIT_CORE = 4, RLIMIT_AS = 9;
  const apply = (to: number) => {
    libc.prlimit(to, RLIMIT_AS, new Uint8Array(new BigUint64Array(2).fill(BigInt(memoryBytes)).buffer), null);
    libc.prlimit(to, RLIMIT_CORE, new Uint8Array(16), null);
  };
  if (pid === undefined) return;
  apply(pid);
  try {
    childrenOf(pid).forEach(apply);
  } catch { /* it has ended */ }
}
