/** What is to be done with a mount in a running container, and what became of it. */

/** A container by its init. */
export interface Inside {
  readonly pid: number;
  /** Of the same process: while it is there, the number is nobody else's. */
  readonly pidfd: number;
}

/** The root of a mount: what tells ours from one that the container made itself. */
export interface MountRoot {
  readonly device: bigint;
  readonly inode: bigint;
  /** Of the mount; absent when only its source is known. */
  readonly id?: number | undefined;
}

export type PlugRequest =
  & Inside
  & { readonly target: string }
  & (
    | {
      readonly kind: "attach";
      /** A detached mount of ours. */
      readonly tree: number;
      readonly isDirectory: boolean;
      /** The container's root on the host: what is made on the way to the target is its. */
      readonly uid: number;
      readonly gid: number;
    }
    /** `root` is absent when its source is gone: then whatever is mounted there goes. `below` was attached with it, and goes with it. */
    | { readonly kind: "detach"; readonly root?: MountRoot; readonly below: readonly string[]; readonly lazy: boolean }
    | { readonly kind: "look"; readonly root?: MountRoot }
    /** Which mounts those are that were attached at a start, `below` with their own targets. */
    | {
      readonly kind: "locate";
      readonly root: MountRoot;
      readonly below: readonly { readonly target: string; readonly root: MountRoot }[];
    }
  );

export interface PlugAnswer {
  /** Name of the errno; absent when it was done. "COVERED": something of the container's own is mounted over it. */
  readonly code?: string;
  /** Where it is mounted in the container, when it is busy. */
  readonly place?: string;
  /** Whether it is mounted, for "look". */
  readonly isMounted?: boolean;
  /** The mount, for "attach", and for "locate" when it is still there. */
  readonly root?: MountRoot;
  /** The mounts below it that are ours, by their `identity`: for "attach", "locate", and "detach" when it stays. */
  readonly below?: readonly string[];
}

/** A mount of a container's namespace, from its mountinfo. @see proc_pid_mountinfo(5) */
export interface ListedMount {
  readonly id: number;
  readonly parent: number;
  readonly target: string;
  /** Id, device, and what of the device is mounted: an id alone may be another mount's later. */
  readonly identity: string;
  /** Whether it came from a mount of another namespace that it follows. */
  readonly isFollowing: boolean;
}
