/** What the daemon asks of a process that touches files which may never answer, and what it answers: one packet a request, one an answer. */

/** A `MountRoot` in words that JSON has. */
export interface WrittenRoot {
  readonly device: string;
  readonly inode: string;
  readonly id?: number | undefined;
}

export type FileTask =
  /** A detached mount of a source, as the descriptor of the answer. Brings one of a user namespace if the mount gets an id map. With `separate`
   * the answer names the mounts below it, which are to be asked for by their paths as `subPath`: they are not in it. `foreign` as of a `MountSpec`. */
  | {
    readonly do: "clone";
    readonly source: string;
    readonly subPath?: string | undefined;
    readonly foreign: boolean;
    readonly recursive: boolean;
    readonly separate?: boolean | undefined;
    readonly options: readonly string[];
    readonly propagation?: string | undefined;
  }
  /** What tells a source from others. */
  | {
    readonly do: "identify";
    readonly source: string;
    readonly subPath?: string | undefined;
    readonly foreign: boolean;
  }
  /** What is at a path of the host; no type when nothing is. Its filesystem is asked, whatever the kernel remembers of the path. */
  | { readonly do: "look"; readonly path: string }
  /** What an LXCFS that is mounted there stands in for. */
  | { readonly do: "lxcfs"; readonly path: string }
  /** Brings a pidfd of the container's init, and the tree. */
  | {
    readonly do: "attach";
    readonly pid: number;
    readonly target: string;
    readonly isDirectory: boolean;
    readonly uid: number;
    readonly gid: number;
  }
  /** Brings a pidfd. */
  | {
    readonly do: "detach";
    readonly pid: number;
    readonly target: string;
    readonly root?: WrittenRoot | undefined;
    readonly below: readonly string[];
    readonly lazy: boolean;
  }
  /** Brings a pidfd. Which mounts of a container those are that it was started with. */
  | {
    readonly do: "locate";
    readonly pid: number;
    readonly target: string;
    readonly root: WrittenRoot;
    readonly below: readonly { readonly target: string; readonly root: WrittenRoot }[];
  }
  /** Brings a pidfd. */
  | {
    readonly do: "isAttached";
    readonly pid: number;
    readonly target: string;
    readonly root?: WrittenRoot | undefined;
  }
  /** A file of a container, as its own processes would find it; its content comes before the answer. */
  | { readonly do: "read"; readonly pid: number; readonly path: string; readonly maxBytes: number }
  | { readonly do: "exists"; readonly pid: number; readonly path: string }
  /** An empty directory of a container goes; one that is not there, or not empty, is no error: it is the container's. */
  | { readonly do: "removeDirectory"; readonly pid: number; readonly path: string }
  /** Which processes of a container keep a mount busy, and which mounts but those that came with it. */
  | {
    readonly do: "holders";
    readonly pid: number;
    readonly processes: readonly number[];
    readonly target: string;
    readonly below: readonly string[];
  };

export interface FileAnswer {
  /** Why it was not done, for the user; with the code of an error of the API, or the name of an errno. */
  readonly error?: string;
  readonly code?: string;
  readonly isDirectory?: boolean;
  readonly root?: WrittenRoot;
  /** Identities of mounts, see `ListedMount`. */
  readonly below?: readonly string[];
  /** Paths in the source where something is mounted. */
  readonly submounts?: readonly string[];
  readonly type?: "directory" | "file" | "other";
  /** From "/" on. */
  readonly targets?: readonly string[];
  readonly place?: string;
  readonly isMounted?: boolean;
  readonly isThere?: boolean;
  readonly holders?: readonly string[];
}

/** First byte of a packet that brings a part of a file; its answer comes after the last one. */
export const contentMark = 0;
/** The only byte of the first packet: the process is there to be asked. */
export const readyMark = 1;
export const contentBytesMax = 32 * 1024;
/** The longest request names every process of a container. */
export const packetBytesMax = 512 * 1024;
export const socketFd = 3;
