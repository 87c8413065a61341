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
    /** @param root Absent when its source is gone: then whatever is mounted there goes. */
    | { readonly kind: "detach"; readonly root?: MountRoot; readonly lazy: boolean }
    | { readonly kind: "look"; readonly root?: MountRoot }
  );

export interface PlugAnswer {
  /** Name of the errno; absent when it was done. "COVERED": something of the container's own is mounted over it. */
  readonly code?: string;
  /** Where it is mounted in the container, when it is busy. */
  readonly place?: string;
  /** Whether it is mounted, for "look". */
  readonly isMounted?: boolean;
}
