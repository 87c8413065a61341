import { mkdir, readdir, rename, statfs } from "node:fs/promises";
import { join } from "node:path";
import { exchange } from "../../host/exchange.ts";
import type { Host } from "../../host/host.ts";
import { dropEmptyParent, makeParent, pathExists, pathOf, renameVolume, setOwner } from "../directory_volumes.ts";
import type {
  Clone,
  CopyOptions,
  CreateOptions,
  Driver,
  Facets,
  Leftover,
  Pool,
  Resources,
  Snapshots,
  Volume,
} from "../driver.ts";
import { listDirectories, listTemporaries, ownerOf, snapshotsDirectory, temporaryOf } from "../layout.ts";
import { copyTree, flush, removeTree } from "../tree.ts";

/** Volumes as plain directories. Snapshots are copies, which cost next to nothing where the filesystem shares blocks (xfs, btrfs). */
export class DirDriver implements Driver {
  readonly pool: Pool;
  readonly facets: Readonly<Partial<Facets>>;
  readonly absent: Readonly<Partial<Record<keyof Facets, string>>>;
  readonly idmappedMounts: boolean;
  readonly mountsVolumes = false;
  readonly #host: Host;
  readonly #reflink: boolean;

  constructor(host: Host, pool: Pool, probed: { reflink: boolean; idmappedMounts: boolean }) {
    this.#host = host;
    this.pool = pool;
    this.#reflink = probed.reflink;
    this.idmappedMounts = probed.idmappedMounts;
    this.facets = { snapshot: this.#snapshots(), ...(probed.reflink ? { clone: this.#clone() } : {}) };
    this.absent = {
      ...(probed.reflink ? {} : { clone: "the filesystem cannot share blocks between files (no reflink)" }),
      quota: "the filesystem has no project quotas enabled (mount option prjquota)",
      send: "a plain directory has no stream format of its own",
      resize: "the pool is a directory of another filesystem",
      health: "the pool is a directory of another filesystem",
    };
  }

  path(volume: Volume): string {
    return pathOf(this.pool, volume);
  }

  async create(volume: Volume, options: CreateOptions = {}): Promise<void> {
    const path = this.path(volume);
    await mkdir(path, { mode: 0o700 });
    await setOwner(path, options);
  }

  async delete(volume: Volume): Promise<void> {
    await removeTree(this.#host, join(this.pool.root, temporaryOf(volume, "restore")));
    await removeTree(this.#host, join(this.pool.root, snapshotsDirectory(volume)));
    await removeTree(this.#host, this.path(volume));
  }

  exists(volume: Volume): Promise<boolean> {
    return pathExists(this.path(volume));
  }

  rename(volume: Volume, name: string): Promise<void> {
    return renameVolume(this.pool, volume, name);
  }

  /** The tree is always there. */
  async mount(): Promise<void> {}
  async unmount(): Promise<void> {}

  list(): Promise<Volume[]> {
    return listDirectories(this.pool.root);
  }

  async leftovers(): Promise<Leftover[]> {
    return (await listTemporaries(this.pool.root)).map((place) => ({ place, of: ownerOf(place) }));
  }

  async resources(): Promise<Resources> {
    const { blocks, bfree, bsize, files, ffree } = await statfs(this.pool.root, { bigint: true });
    return {
      space: { used: (blocks - bfree) * bsize, total: blocks * bsize },
      inodes: { used: files - ffree, total: files },
    };
  }

  async close(): Promise<void> {
    await this.#host.mounts.unmount(this.pool.root);
  }

  async #copy(source: string, target: string, options: CopyOptions = {}): Promise<void> {
    await copyTree(this.#host, source, target, { reflink: this.#reflink ? "always" : "auto", signal: options.signal });
    await flush(this.#host, target);
  }

  #snapshots(): Snapshots {
    return {
      cost: this.#reflink ? "reflink" : "copy",
      create: async (snapshot, options) => {
        const target = this.path(snapshot);
        await makeParent(target);
        await this.#copy(this.path({ ...snapshot, snapshot: undefined } as Volume), target, options);
      },
      delete: async (snapshot) => {
        await removeTree(this.#host, this.path(snapshot));
        await dropEmptyParent(this.path(snapshot));
      },
      rename: (snapshot, name) => rename(this.path(snapshot), this.path({ ...snapshot, snapshot: name })),
      restore: async (snapshot) => {
        const { snapshot: _, ...volume } = snapshot;
        const temporary = join(this.pool.root, temporaryOf(volume, "restore"));
        await removeTree(this.#host, temporary);
        await this.#copy(this.path(snapshot), temporary);
        exchange(temporary, this.path(volume));
      },
      afterRestore: (volume) => removeTree(this.#host, join(this.pool.root, temporaryOf(volume, "restore"))),
      list: (parent) =>
        readdir(join(this.pool.root, snapshotsDirectory(parent))).catch((error: NodeJS.ErrnoException) => {
          if (error.code === "ENOENT") return [];
          throw error;
        }),
    };
  }

  #clone(): Clone {
    return {
      cost: "reflink",
      carriesSnapshots: true,
      clone: async (source, target, options) => {
        if (target.snapshot !== undefined) await makeParent(this.path(target));
        await this.#copy(this.path(source), this.path(target), options);
        if (options?.mode !== undefined) await setOwner(this.path(target), options);
      },
    };
  }
}
