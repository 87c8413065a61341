/** The container runtime: starts, watches, enters and stops containers. It knows nothing of pools, profiles or HTTP; it gets paths that are
 * mounted and a finished specification. One container is one OCI bundle below `$LIDO_DIR/run/<name>` and one crun state; there
 * is no monitor process, the daemon is the subreaper of what it starts and finds what an earlier daemon started again by `list`. */

import type { IdMap } from "../host/id_map.ts";
import type { SyscallPolicy } from "./syscall_list.ts";

export interface MountSpec {
  /** What its user calls it, for errors. */
  readonly device?: string;
  /** Absolute path on the host. */
  readonly source: string;
  /** Whether `source` is a path of the host that is none of ours: it may be on a filesystem that never answers. */
  readonly foreign?: boolean;
  /** What to mount within `source`, which containers may write to: no symlink is followed. Absent for all of it. */
  readonly subPath?: string;
  /** Absolute path in the container; resolved beneath its root, made if missing. */
  readonly target: string;
  /** Of `mountOptionNames` (drivers/host/mounts/mount_options.ts), such as "ro" and "nosuid". */
  readonly options?: readonly string[];
  readonly recursive?: boolean;
  readonly propagation?: string;
  /** Whether the mount gets the container's id map (idmapped mount), so that root-owned files on disk are root's inside. */
  readonly shifted?: boolean;
}

/** A mount of a container, as far as it must be known to find it there. */
export type MountPlace = Pick<MountSpec, "source" | "subPath" | "foreign" | "target">;

export interface DetachOptions {
  readonly lazy?: boolean;
  readonly whatever?: boolean;
  /** Whether the directory that it was mounted at goes, too, if it is empty. */
  readonly removeTarget?: boolean;
}

/** A device that a container may use. @see https://docs.kernel.org/admin-guide/cgroup-v1/devices.html */
export interface DeviceRule {
  readonly type: "b" | "c";
  /** Absent for all of them, as `minor`. */
  readonly major?: number;
  readonly minor?: number;
  /** Of "r", "w" and "m" (make its node). */
  readonly access: string;
}

export interface ContainerSpec {
  readonly name: string;
  /** Host path of the mounted root filesystem. */
  readonly rootfs: string;
  /** Whether `rootfs` is mounted with the id map (root-owned on disk), or its owners were shifted on disk already. */
  readonly rootfsShifted: boolean;
  /** Absent for a privileged container. */
  readonly idmap?: IdMap;
  readonly mounts: readonly MountSpec[];
  /** Devices beyond those that every container may use. */
  readonly devices?: readonly DeviceRule[];
  /** Whether containers may be run in it: it can mount /proc and /sys for them. */
  readonly nesting?: boolean;
  readonly syscalls?: SyscallPolicy;
  readonly environment: Readonly<Record<string, string>>;
  /** Default ["/sbin/init"]. */
  readonly init?: readonly string[];
  /** Where what the console printed last is written when the container has ended, in the place of what is there; 0600. */
  readonly consoleLog: string;
  readonly limits?: Limits;
}

/** What a container may use; what is absent is not limited. */
export interface Limits {
  /** A soft limit may be exceeded while the host has memory to spare. */
  readonly memory?: { readonly bytes: bigint; readonly enforce: "hard" | "soft" };
  /** Whether its memory may be swapped out. */
  readonly swap: boolean;
  /** 0 to 10: the higher, the later it is swapped out. */
  readonly swapPriority?: number;
  /** A negative number is none. */
  readonly processes?: number;
  /** A number of CPUs, or a set of them as in "0-3,5". */
  readonly cpus?: number | string;
  /** A share of the CPU time when others want it too, or so much of each period. */
  readonly cpuAllowance?:
    | { readonly kind: "share"; readonly percent: number }
    | { readonly kind: "time"; readonly quotaMs: number; readonly periodMs: number };
  /** 0 to 10: among containers of the same share. */
  readonly cpuPriority?: number;
  /** Bytes by size of the pages: 64KB, 1MB, 2MB, 1GB. */
  readonly hugepages: Readonly<Record<string, bigint>>;
  /** 0 to 10. */
  readonly diskPriority?: number;
}

export interface RunningContainer {
  readonly name: string;
  readonly pid: number;
  readonly status: "running" | "frozen";
  /** When the init process was started. */
  readonly startedAt: Date;
  /** The map it was started with; undefined for a privileged one. */
  readonly idmap: IdMap | undefined;
}

/** argv, environment and identity of a command, as given; nothing goes through a shell. */
export interface CommandSpec {
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly uid: number;
  readonly gid: number;
  readonly groups?: readonly number[];
}

export type CommandStdio =
  | { readonly kind: "pipes"; readonly stdin: number; readonly stdout: number; readonly stderr: number }
  | { readonly kind: "pty"; readonly width: number; readonly height: number };

/** A command that runs in a container. The caller owns the fds and closes them; the daemon is the process's parent and reaps it
 * (waitpid) when `pidfd` is readable. */
export interface LaunchedCommand {
  readonly pid: number;
  readonly pidfd: number;
  /** Master of the pty, when one was asked for. */
  readonly pty?: number;
  /** To be called when it was reaped: what was kept to know it by is of no use any more. */
  readonly reaped?: () => void;
}

/** How a container's init ended. */
export interface ContainerEnd {
  readonly code?: number;
  readonly signal?: number;
  /** Limits by which the kernel refused it something while it ran; absent when there was none. */
  readonly limitsReached?: readonly ReachedLimit[];
}

/** A new process was refused; a process was killed for want of memory. */
export type ReachedLimit = "processes" | "memory";

/** A console's terminal for who attaches to it; the descriptors are the caller's. */
export interface ConsoleTerminal {
  /** Of the pty's master: to write to, and to set the window's size. Not to be read. */
  readonly master: number;
  /** A pipe of what the console prints from now on; it ends with the container, or when the console is lost. */
  readonly output: number;
  /** Why no more comes although the container runs. */
  lost(): Error | undefined;
  /** To be called when the output is not read any more. */
  release(): void;
}

/** The command could not be started: 127 when it is missing, 126 when it cannot be executed, as a shell says it. */
export class LaunchError extends Error {
  override name = "LaunchError";
  readonly exitCode: 126 | 127;

  constructor(exitCode: 126 | 127, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

export interface Runtime {
  /** What this host lacks, in words that say how to mend it; empty when containers can run. */
  check(): Promise<string[]>;
  /** @throws {LidoError} With the runtime's reason and where the log is, when it does not come up; nothing is left then. */
  start(spec: ContainerSpec): Promise<RunningContainer>;
  /** Sends a signal to the container's init. */
  kill(name: string, signal: number): Promise<void>;
  /** Kills every process of the container, takes its cgroup and runtime state away; nothing there is no error. */
  destroy(name: string): Promise<void>;
  /** Changes a running container's limits at once. @throws {LidoError} bad_request; nothing has changed then. */
  setLimits(name: string, limits: Limits): Promise<void>;
  freeze(name: string): Promise<void>;
  unfreeze(name: string): Promise<void>;
  get(name: string): RunningContainer | undefined;
  /** Containers of this daemon's directory that run; called once at start, takes them up (watch) again. */
  adopt(): Promise<RunningContainer[]>;
  /** Called once for each end of a container, however it came; `status` is unknown for one that an earlier daemon had started. */
  onExit(listener: (name: string, end: ContainerEnd) => void): void;
  exec(name: string, command: CommandSpec, stdio: CommandStdio): Promise<LaunchedCommand>;
  /** Mounts into the running container's own namespace. @throws {LidoError} When the target leaves the root or cannot be made; this and the next two:
   * unavailable, when a filesystem of the container does not answer in time. */
  attach(name: string, mount: MountSpec): Promise<void>;
  /** Unmounts it, wherever the container may have moved it. What is not mounted any more is no error.
   * @throws {LidoError} When it is in use, with who holds it; not so if it may go `lazy`, when they have let it go.
   * @param options.whatever Not only that mount, but what is uppermost at its target; its source is not asked for. */
  detach(name: string, mount: MountPlace, options?: DetachOptions): Promise<void>;
  /** Whether it is mounted at its target now. */
  isAttached(name: string, mount: MountPlace): Promise<boolean>;
  /** What is at a path of the host, which may never answer. @param tenant Whose it is: who has too many that do not answer waits alone. The name of an
   * instance that is to have it, or one that no instance can have. @returns undefined when nothing is.
   * @throws {LidoError} bad_request, naming the path, when it does not answer in time. */
  lookAtSource(tenant: string, path: string): Promise<"directory" | "file" | "other" | undefined>;
  /** What the LXCFS at `path` stands in for. @throws {NotAnswered} After `timeoutMs`. @throws {Error} With the name of an errno as `code`. */
  lxcfsTargets(path: string, timeoutMs: number): Promise<readonly string[]>;
  /** A regular file of a running container as its processes find it, up to a MiB. @returns undefined when there is none.
   * @throws {LidoError} bad_request when it is something else, or does not answer in time. */
  readFile(name: string, path: string): Promise<Uint8Array | undefined>;
  /** Whether there is anything at a path in a running container. @throws {LidoError} bad_request when it does not answer in time. */
  fileExists(name: string, path: string): Promise<boolean>;
  /** A running container's console, for one who attaches to it. */
  attachConsole(name: string): Promise<ConsoleTerminal>;
  /** What a running container's console printed last; its size is bounded. */
  consoleContent(name: string): Promise<Uint8Array>;
  clearConsole(name: string): Promise<void>;
  /** Processes, memory and CPU of a container from its cgroup. */
  usage(name: string): Promise<{ processes: number; memoryBytes: bigint; memoryPeakBytes: bigint; cpuNs: bigint }>;
  /** What is there of containers that are not: directories, cgroups. @returns Their names; `destroy` takes it away. */
  strays(): Promise<string[]>;
  /** Ends watching; containers go on. */
  close(): Promise<void>;
}

export interface RuntimeLog {
  info(context: object, message: string): void;
  warn(context: object, message: string): void;
}
