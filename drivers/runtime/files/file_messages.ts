/** Messages between the daemon and a file process: one packet per request, one per answer. */

/** A `MountRoot` in JSON's types. */
export interface WrittenRoot {
  readonly device: string;
  readonly inode: string;
  readonly id?: number | undefined;
}

export type FileTask =
  /** Create a detached mount of a source; the answer carries its descriptor. The request brings a user namespace if the mount gets an id map. With
   * `separate` the mount is without the mounts below it: the answer has their paths, to be requested one by one as `subPath`. `foreign` as in
   * `MountSpec`. */
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
  /** Identify a source. */
  | {
    readonly do: "identify";
    readonly source: string;
    readonly subPath?: string | undefined;
    readonly foreign: boolean;
  }
  /** Type of a host path; absent when nothing is there. Asks the filesystem itself, not the kernel's cache. */
  | { readonly do: "look"; readonly path: string }
  /** The paths that an LXCFS mounted at `path` replaces. */
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
  /** Brings a pidfd. Finds the mounts that a container was started with. */
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
  /** Read a file as the container's own processes would find it; the content comes before the answer. */
  | { readonly do: "read"; readonly pid: number; readonly path: string; readonly maxBytes: number }
  | { readonly do: "exists"; readonly pid: number; readonly path: string }
  /** Remove an empty directory of a container. A missing one, or one that is not empty, is no error: it is the container's. */
  | { readonly do: "removeDirectory"; readonly pid: number; readonly path: string }
  /** Find the processes of a container that keep a mount busy, and the mounts below it other than those that came with it. */
  | {
    readonly do: "holders";
    readonly pid: number;
    readonly processes: readonly number[];
    readonly target: string;
    readonly below: readonly string[];
  };

export interface FileAnswer {
  /** Reason of the failure, for the user; `code` is an API error code, or the name of an errno. */
  readonly error?: string;
  readonly code?: string;
  readonly isDirectory?: boolean;
  readonly root?: WrittenRoot;
  /** Identities of mounts, see `ListedMount`. */
  readonly below?: readonly string[];
  /** Paths of mount points in the source. */
  readonly submounts?: readonly string[];
  readonly type?: "directory" | "file" | "other";
  /** Absolute paths, beginning with "/". */
  readonly targets?: readonly string[];
  readonly place?: string;
  readonly isMounted?: boolean;
  readonly isThere?: boolean;
  readonly holders?: readonly string[];
}

/** First byte of a packet with a part of a file; the answer comes after the last part. */
export const contentMark = 0;
/** The only byte of the first packet: the process is ready for requests. */
export const readyMark = 1;
export const contentBytesMax = 32 * 1024;
/** The longest request names every process of a container. */
export const packetBytesMax = 512 * 1024;
export const socketFd = 3;
