import type { Readable } from "node:stream";

/** The host as drivers see it. Drivers access the host only through this interface, so a test can pass `FakeHost`, which records the
 * calls and answers from a script. Everything is argv lists and paths; there is no shell anywhere. */
export interface Host {
  /** Runs one of the tools that may see the whole host (`trustedTools`) until it ends.
   * @throws {CommandError} If it exits with a code not in `okCodes`, dies by a signal, times out or is missing. */
  run(argv: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** Starts such a tool with a stream as stdin, stdout or both. */
  pipe(argv: readonly string[], options?: PipeOptions): PipedCommand;
  /** The only way to start a tool that touches data shaped by a container or an archive. The tool sees only the given paths and the host's
   * programs. */
  confined(confinement: Confinement): ConfinedTools;
  /** @returns The absolute path of a tool on the host's PATH (with /usr/sbin and /sbin), or undefined. */
  which(tool: string): Promise<string | undefined>;
  readonly mounts: Mounts;
  readonly loops: Loops;
  readonly quotas: ProjectQuotas;
}

export interface ConfinedTools {
  /** As `Host.run`. */
  run(argv: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** As `Host.pipe`. */
  pipe(argv: readonly string[], options?: PipeOptions): PipedCommand;
}

/** What a confined tool may use. */
export interface Confinement {
  /** Directories and files that it may read: path as the tool sees it → host path, which no container can replace, such as
   * that of a volume's root. */
  readonly reads?: Readonly<Record<string, string>>;
  /** The same for those that it may change. */
  readonly writes?: Readonly<Record<string, string>>;
  /** Device nodes that it may open, at their paths on the host. */
  readonly devices?: readonly string[];
  /** Whether it has a /proc of its own pid namespace; tools with devices always have. */
  readonly hasProc?: boolean;
  readonly capabilities?: readonly Capability[];
  /** Limit on address space of each process; default 4 GiB. */
  readonly memoryBytes?: number;
}

/** @see capabilities(7) */
export type Capability =
  | "CAP_CHOWN"
  | "CAP_DAC_OVERRIDE"
  | "CAP_DAC_READ_SEARCH"
  | "CAP_FOWNER"
  | "CAP_FSETID"
  | "CAP_MKNOD"
  | "CAP_SETFCAP"
  | "CAP_SYS_ADMIN";

export interface RunOptions {
  readonly stdin?: string | Uint8Array;
  /** Default 10 minutes; a tool that hangs is killed and reported. */
  readonly timeoutMs?: number;
  readonly cwd?: string;
  readonly signal?: AbortSignal;
  /** Called every quarter of a second with the bytes that the tool has written to files so far. */
  readonly progress?: (bytes: bigint) => void;
  /** Exit codes that are no failure; default [0]. */
  readonly okCodes?: readonly number[];
}

export interface RunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface PipeOptions {
  /** As for `run`. */
  readonly okCodes?: readonly number[];
  readonly stdin?: Readable;
  readonly signal?: AbortSignal;
  readonly cwd?: string;
  /** Default 10 minutes; a tool that has read and written nothing for so long (or up to twice that) is killed and reported. 0: never. */
  readonly stallMs?: number;
  /** Called regularly with the bytes that the tool has read. */
  readonly progress?: (bytes: bigint) => void;
}

export interface PipedCommand {
  readonly stdout: Readable;
  /** Resolves when the tool has ended and its stdin was delivered.
   * @throws {CommandError} As `run`. */
  readonly done: Promise<void>;
}

/** A tool that failed: `message` has the tool's name and its first line of stderr, ready for the user. */
export class CommandError extends Error {
  override name = "CommandError";
  readonly argv: readonly string[];
  readonly code: number | undefined;
  readonly stderr: string;

  constructor(argv: readonly string[], code: number | undefined, stderr: string, reason?: string) {
    const detail = stderr.trim().split("\n").map((line) => line.trim()).filter(Boolean).slice(-3).join("; ");
    super(`Failed to run: ${argv.join(" ")}: ${reason ?? `exit status ${code}`}${detail ? ` (${detail})` : ""}`);
    this.argv = argv;
    this.code = code;
    this.stderr = stderr;
  }
}

/** One row of /proc/self/mountinfo, unescaped. @see proc_pid_mountinfo(5) */
export interface MountEntry {
  readonly id: number;
  readonly device: string;
  readonly root: string;
  readonly target: string;
  readonly options: readonly string[];
  readonly type: string;
  readonly source: string;
  readonly superOptions: readonly string[];
}

export interface Mounts {
  /** Mounts a filesystem; the implementation extracts flags such as `ro` and `noatime` from `options`. @see mount(2) */
  mount(source: string, target: string, type: string, options?: readonly string[]): Promise<void>;
  bind(source: string, target: string): Promise<void>;
  /** From then on, device nodes below `target`, a mount point, cannot be opened. */
  forbidDevices(target: string): Promise<void>;
  /** Unmounts every mount at `target`, the uppermost first; no mount there is no error.
   * @param options.lazy MNT_DETACH. @throws {SystemCallError} EBUSY. */
  unmount(target: string, options?: { lazy?: boolean }): Promise<void>;
  list(): Promise<MountEntry[]>;
  /** @returns The mount at exactly `target`, the uppermost if several. */
  at(target: string): Promise<MountEntry | undefined>;
  /** Whether idmapped mounts work for the filesystem of `path` (tried, with a temporary user namespace). */
  canIdmap(path: string): Promise<boolean>;
}

export interface Loops {
  /** @param options.directIo Tried; buffered I/O if the filesystem refuses. @returns The device, "/dev/loopN". @see loop(4) */
  attach(file: string, options?: { directIo?: boolean }): Promise<string>;
  detach(device: string): Promise<void>;
  /** @param options.isCurrent Without devices whose file was deleted and is no longer at that path.
   * @returns The devices whose backing file is, or was, `file`. */
  find(file: string, options?: { isCurrent?: boolean }): Promise<string[]>;
  /** Lists all attached devices. @returns Device and backing file; `isDeleted`: the file is no longer at its path. */
  list(): Promise<{ device: string; file: string; isDeleted: boolean }[]>;
  /** Makes the device see its file's new size (LOOP_SET_CAPACITY). */
  refresh(device: string): Promise<void>;
}

/** Quotas of directory trees on ext4 and xfs. A tree is marked by a *project id*, which every file in it has and every new one inherits; the
 * kernel counts and limits by it. A tree's id is read from its top directory and recorded nowhere else, so it
 * survives every rename, and no second record can disagree. @see quotactl(2), FS_IOC_FSSETXATTR in ioctl_xfs_fsgetxattr(2) */
export interface ProjectQuotas {
  /** Whether trees below `directory` can be limited, and whether root is exempt; or why not. */
  probe(directory: string): Promise<{ readonly exemptsRoot: boolean } | { readonly absent: string }>;
  /** Gives an empty directory a project id that is unique on the filesystem. */
  assign(directory: string): Promise<void>;
  /** The same for a tree with content; includes files created meanwhile. May be interrupted and repeated. */
  adopt(directory: string): Promise<void>;
  /** @returns undefined when the tree has no project, or only a part of it has. */
  usage(
    directory: string,
  ): Promise<
    { readonly usedBytes: bigint; readonly limitBytes: bigint | undefined; readonly usedInodes: number } | undefined
  >;
  /** @param limitBytes Rounded up to the filesystem's unit, 1 or 4 KiB; undefined lifts the limit. */
  limit(directory: string, limitBytes: bigint | undefined): Promise<void>;
  /** To be called before the tree is deleted: the kernel drops the project's record with its last file. No tree or no project is no error. */
  release(directory: string): Promise<void>;
}
