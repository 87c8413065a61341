/** The container runtime: starts, watches, enters and stops containers. It knows nothing of pools, profiles or HTTP; it gets mounted paths and a
 * complete specification. Each container is one OCI bundle below `$LIDO_DIR/run/<name>` and one crun state. There is no monitor process: the daemon
 * is the subreaper of the containers that it starts; `adopt` finds those that an earlier daemon started. */

import type { IdMap } from "../host/id_map.ts";
import type { SyscallPolicy } from "./syscall_list.ts";

export interface MountSpec {
  /** The user's name for it, for error messages. */
  readonly device?: string;
  /** Absolute path on the host. */
  readonly source: string;
  /** Whether `source` is a host path outside our pools: it may be on a filesystem that never answers. */
  readonly foreign?: boolean;
  /** Path within `source` to mount. Containers may write to it: no symlink is followed. Absent for all of `source`. */
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

/** What is needed to find a mount in a container. */
export type MountPlace = Pick<MountSpec, "source" | "subPath" | "foreign" | "target">;

export interface DetachOptions {
  readonly lazy?: boolean;
  readonly whatever?: boolean;
  /** Whether the mount point is removed, too, if it is an empty directory. */
  readonly removeTarget?: boolean;
}

/** A device that a container may use. @see https://docs.kernel.org/admin-guide/cgroup-v1/devices.html */
export interface DeviceRule {
  readonly type: "b" | "c";
  /** Absent for all of them; so is `minor`. */
  readonly major?: number;
  readonly minor?: number;
  /** Of "r", "w" and "m" (create its node). */
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
  /** Whether containers may run in it: it can mount /proc and /sys for them. */
  readonly nesting?: boolean;
  readonly syscalls?: SyscallPolicy;
  readonly environment: Readonly<Record<string, string>>;
  /** Default ["/sbin/init"]. */
  readonly init?: readonly string[];
  /** File for the console's latest output when the container has ended; it replaces what is there; 0600. */
  readonly consoleLog: string;
  readonly limits?: Limits;
}

/** A container's limits; an absent one means unlimited. */
export interface Limits {
  /** A soft limit may be exceeded while the host has memory to spare. */
  readonly memory?: { readonly bytes: bigint; readonly enforce: "hard" | "soft" };
  /** Whether its memory may be swapped out. */
  readonly swap: boolean;
  /** 0 to 10: the higher, the later memory is swapped out. */
  readonly swapPriority?: number;
  /** A negative number means unlimited. */
  readonly processes?: number;
  /** A number of CPUs, or a set such as "0-3,5". */
  readonly cpus?: number | string;
  /** A share of the CPU time under contention, or a quota of each period. */
  readonly cpuAllowance?:
    | { readonly kind: "share"; readonly percent: number }
    | { readonly kind: "time"; readonly quotaMs: number; readonly periodMs: number };
  /** 0 to 10: priority among containers with the same share. */
  readonly cpuPriority?: number;
  /** Bytes by page size: 64KB, 1MB, 2MB, 1GB. */
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
  /** Master of the pty, when one was requested. */
  readonly pty?: number;
  /** To be called when the process was reaped: removes the records for recognising it. */
  readonly reaped?: () => void;
}

/** How a container's init ended. */
export interface ContainerEnd {
  readonly code?: number;
  readonly signal?: number;
  /** Limits that made the kernel refuse something while it ran; absent when there was none. */
  readonly limitsReached?: readonly ReachedLimit[];
}

/** "processes": a new process was refused. "memory": a process was killed for lack of memory. */
export type ReachedLimit = "processes" | "memory";

/** A console's terminal for an attached client; the caller closes the descriptors. */
export interface ConsoleTerminal {
  /** The pty's master, for writing and for setting the window's size. Not for reading. */
  readonly master: number;
  /** A pipe of what the console prints from now on; it ends with the container, or when the console is lost. */
  readonly output: number;
  /** Why no more output comes although the container runs. */
  lost(): Error | undefined;
  /** To be called when the output is no longer read. */
  release(): void;
}

/** The command could not be started: 127 when it is missing, 126 when it cannot be executed, as in a shell. */
export class LaunchError extends Error {
  override name = "LaunchError";
  readonly exitCode: 126 | 127;

  constructor(exitCode: 126 | 127, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

export interface Runtime {
  /** @returns What this host lacks, in words that say how to fix it; empty when containers can run. */
  check(): Promise<string[]>;
  /** @throws {LidoError} With the runtime's reason and the log's path, when the start fails; everything is removed then. */
  start(spec: ContainerSpec): Promise<RunningContainer>;
  /** Sends a signal to the container's init. */
  kill(name: string, signal: number): Promise<void>;
  /** Kills every process of the container, removes its cgroup and runtime state; if nothing is there, that is no error. */
  destroy(name: string): Promise<void>;
  /** Changes a running container's limits at once. @throws {LidoError} bad_request; then nothing has changed. */
  setLimits(name: string, limits: Limits): Promise<void>;
  freeze(name: string): Promise<void>;
  unfreeze(name: string): Promise<void>;
  get(name: string): RunningContainer | undefined;
  /** Called once at start: watches the running containers of this daemon's directory again. @returns Them. */
  adopt(): Promise<RunningContainer[]>;
  /** `listener` is called once for each end of a container, whatever its cause; the status is unknown if an earlier daemon started it. */
  onExit(listener: (name: string, end: ContainerEnd) => void): void;
  exec(name: string, command: CommandSpec, stdio: CommandStdio): Promise<LaunchedCommand>;
  /** Mounts into the running container's own namespace. @throws {LidoError} When the target leaves the root or cannot be created. This and the next
   * two: unavailable, when a filesystem of the container does not answer in time. */
  attach(name: string, mount: MountSpec): Promise<void>;
  /** Unmounts it, wherever the container may have moved it. It is no error if it is not mounted any more.
   * @throws {LidoError} When it is in use, naming the processes; with `lazy` the unmount completes when they release it.
   * @param options.whatever Unmounts not only that mount, but the uppermost one at its target; its source is not asked for. */
  detach(name: string, mount: MountPlace, options?: DetachOptions): Promise<void>;
  /** Whether it is mounted at its target now. */
  isAttached(name: string, mount: MountPlace): Promise<boolean>;
  /** Type of the file at a host path, which may never answer. @param tenant Whose share of the file processes is used: an instance that is to get the
   * path, or a name that no instance can have. @returns undefined when nothing is there.
   * @throws {LidoError} bad_request, naming the path, when it does not answer in time. */
  lookAtSource(tenant: string, path: string): Promise<"directory" | "file" | "other" | undefined>;
  /** The paths that the LXCFS at `path` replaces. @throws {NotAnswered} After `timeoutMs`. @throws {Error} With the name of an errno as `code`. */
  lxcfsTargets(path: string, timeoutMs: number): Promise<readonly string[]>;
  /** A regular file of a running container as its processes find it, up to a MiB. @returns undefined when there is none.
   * @throws {LidoError} bad_request when it is something else, or does not answer in time. */
  readFile(name: string, path: string): Promise<Uint8Array | undefined>;
  /** Whether there is anything at a path in a running container. @throws {LidoError} bad_request when it does not answer in time. */
  fileExists(name: string, path: string): Promise<boolean>;
  /** Attaches a client to a running container's console. */
  attachConsole(name: string): Promise<ConsoleTerminal>;
  /** The latest output of a running container's console; its size is bounded. */
  consoleContent(name: string): Promise<Uint8Array>;
  clearConsole(name: string): Promise<void>;
  /** Processes, memory and CPU of a container from its cgroup. */
  usage(name: string): Promise<{ processes: number; memoryBytes: bigint; memoryPeakBytes: bigint; cpuNs: bigint }>;
  /** Leftovers of containers that do not run: directories, cgroups. @returns Their names; `destroy` removes them. */
  strays(): Promise<string[]>;
  /** Ends watching; containers go on. */
  close(): Promise<void>;
}

export interface RuntimeLog {
  info(context: object, message: string): void;
  warn(context: object, message: string): void;
}
