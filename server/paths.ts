import { join } from "node:path";

/** Paths below $LIDO_DIR, with LXD's names. */
export interface Paths {
  readonly root: string;
  readonly socket: string;
  readonly lock: string;
  readonly database: string;
  readonly storagePools: string;
  readonly disks: string;
  readonly images: string;
  /** Copies of the pools' records, by which recovery finds the pools when the database is lost. */
  readonly pools: string;
  readonly backups: string;
  /** The guest API's sockets: a directory for each running container. */
  readonly devlxd: string;
  readonly run: string;
  readonly logs: string;
}

export function pathsIn(root: string): Paths {
  return {
    root,
    socket: join(root, "unix.socket"),
    lock: join(root, "lido.pid"),
    database: join(root, "lido.db"),
    storagePools: join(root, "storage-pools"),
    disks: join(root, "disks"),
    images: join(root, "images"),
    pools: join(root, "pools"),
    backups: join(root, "backups"),
    devlxd: join(root, "devlxd"),
    run: join(root, "run"),
    logs: join(root, "logs"),
  };
}
