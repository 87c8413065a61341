/** Requests to change or find a mount in a running container, and their outcomes. */

/** A container by its init. */
export interface Inside {
  readonly pid: number;
  /** Of the same process: while it is open, no other process can be mistaken for it. */
  readonly pidfd: number;
}

/** The root of a mount: distinguishes ours from one that the container made itself. */
export interface MountRoot {
  readonly device: bigint;
  readonly inode: bigint;
  /** Id of the mount; absent when only its source is known. */
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
      /** Host ids of the container's root: it becomes the owner of directories created on the way to the target. */
      readonly uid: number;
      readonly gid: number;
    }
    /** Without `root` (its source is gone) whatever is mounted there is unmounted. `below` was attached with the mount, and is unmounted with it. */
    | { readonly kind: "detach"; readonly root?: MountRoot; readonly below: readonly string[]; readonly lazy: boolean }
    | { readonly kind: "look"; readonly root?: MountRoot }
    /** Finds the mounts that were attached at a start; those of `below` have their own targets. */
    | {
      readonly kind: "locate";
      readonly root: MountRoot;
      readonly below: readonly { readonly target: string; readonly root: MountRoot }[];
    }
  );

export interface PlugAnswer {
  /** Name of the errno; absent on success. "COVERED": the container has mounted something over it. */
  readonly code?: string;
  /** Its mount point in the container, when it is busy. */
  readonly place?: string;
  /** Whether it is mounted, for "look". */
  readonly isMounted?: boolean;
  /** The mount, for "attach", and for "locate" when it is still mounted. */
  readonly root?: MountRoot;
  /** Our mounts below it, by their `identity`: for "attach", "locate", and "detach" when it stays. */
  readonly below?: readonly string[];
}

/** A mount in a container's namespace, from its mountinfo. @see proc_pid_mountinfo(5) */
export interface ListedMount {
  readonly id: number;
  readonly parent: number;
  readonly target: string;
  /** Id, device, and the mounted part of the device: an id alone may be reused by another mount. */
  readonly identity: string;
  /** Whether it was propagated from another namespace (slave mount). */
  readonly isFollowing: boolean;
}
