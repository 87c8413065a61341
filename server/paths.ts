import { join } from "node:path";

/** Where things are below $LIDO_DIR; LXD's names. */
export interface Paths {
  readonly root: string;
  readonly socket: string;
  readonly lock: string;
  readonly database: string;
  readonly storagePools: string;
  readonly disks: string;
  readonly images: string;
  /** Notes of the pools that there are, to find them by when the database is lost. */
  readonly pools: string;
  readonly backups: string;
  /** The guest API's sockets, a directory for each container that runs. */
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
