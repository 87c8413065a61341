/** One line of an id map: `count` ids from `container` on are the host's ids from `host` on. @see user_namespaces(7) */
export interface IdRange {
  readonly container: number;
  readonly host: number;
  readonly count: number;
}

export interface IdMap {
  readonly uid: readonly IdRange[];
  readonly gid: readonly IdRange[];
}
