import { mkdir, readdir, statfs } from "node:fs/promises";
import { join } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import { exchange } from "../../host/files/exchange.ts";
import type { Host } from "../../host/host.ts";
import {
  dropEmptyParent,
  isTaken,
  makeNew,
  makeParent,
  pathExists,
  pathOf,
  renameSnapshot,
  renameVolume,
  setOwner,
  unfitDirectory,
} from "../directory_volumes.ts";
import type {
  Clone,
  CreateOptions,
  Driver,
  Facets,
  Leftover,
  Pool,
  Quota,
  Resources,
  Snapshots,
  Volume,
  WatchOptions,
} from "../driver.ts";
import {
  describe,
  listDirectories,
  listEmpty,
  listTemporaries,
  ownerOf,
  refuseBelowUse,
  snapshotsDirectory,
  temporaryOf,
} from "../layout.ts";
import { copyTree, flush, removeTree } from "../tree.ts";

/** Volumes as plain directories. Snapshots are copies, which cost next to nothing where the filesystem shares blocks (xfs, btrfs). Where it has
 * project quotas, each volume is a project from its creation on: its use is known at once, and setting a limit costs nothing. */
export class DirDriver implements Driver {
  readonly pool: Pool;
  readonly facets: Readonly<Partial<Facets>>;
  readonly absent: Readonly<Partial<Record<keyof Facets, string>>>;
  readonly idmappedMounts: boolean;
  readonly mountsVolumes = false;
  readonly #host: Host;
  readonly #reflink: boolean;
  readonly #hasQuotas: boolean;

  /** @param probed.quota Result of `ProjectQuotas.probe`. */
  constructor(
    host: Host,
    pool: Pool,
    probed: { reflink: boolean; idmappedMounts: boolean; quota: { exemptsRoot: boolean } | { absent: string } },
  ) {
    this.#host = host;
    this.pool = pool;
    this.#reflink = probed.reflink;
    this.#hasQuotas = "exemptsRoot" in probed.quota;
    this.idmappedMounts = probed.idmappedMounts;
    this.facets = {
      snapshot: this.#snapshots(),
      ...(probed.reflink ? { clone: this.#clone() } : {}),
      ...("exemptsRoot" in probed.quota ? { quota: this.#quota(probed.quota.exemptsRoot) } : {}),
    };
    this.absent = {
      ...(probed.reflink ? {} : { clone: "the filesystem cannot share blocks between files (no reflink)" }),
      ...("absent" in probed.quota ? { quota: probed.quota.absent } : {}),
      send: "a plain directory has no stream format of its own",
      resize: "the pool is a directory of another filesystem",
      health: "the pool is a directory of another filesystem",
    };
  }

  path(volume: Volume): string {
    return pathOf(this.pool, volume);
  }

  async create(volume: Volume, options: CreateOptions = {}): Promise<void> {
    await this.#makeVolume(volume);
    await setOwner(this.path(volume), volume, options);
    if (options.sizeBytes !== undefined) await this.#limit(volume, options.sizeBytes);
  }

  async delete(volume: Volume): Promise<void> {
    await this.#remove(join(this.pool.root, temporaryOf(volume, "restore")));
    await removeTree(this.#host, join(this.pool.root, snapshotsDirectory(volume)));
    await this.#remove(this.path(volume));
  }

  exists(volume: Volume): Promise<boolean> {
    return pathExists(this.path(volume));
  }

  unfit(volume: Volume): Promise<string | undefined> {
    return unfitDirectory(this.pool, volume);
  }

  isTaken(volume: Volume): Promise<boolean> {
    return isTaken(this.pool, volume);
  }

  rename(volume: Volume, name: string): Promise<void> {
    return renameVolume(this.pool, volume, name);
  }

  /** Nothing to mount: the tree is always there. */
  async mount(): Promise<void> {}
  async unmount(): Promise<void> {}

  list(): Promise<Volume[]> {
    return listDirectories(this.pool.root);
  }

  async leftovers(): Promise<Leftover[]> {
    const places = [...await listTemporaries(this.pool.root), ...await listEmpty(this.pool.root)];
    return places.map((place) => ({
      place,
      of: ownerOf(place),
      remove: () => this.#remove(join(this.pool.root, place)),
    }));
  }

  /** Deletes what a killed daemon left. */
  async sweep(): Promise<void> {
    for (const place of await listTemporaries(this.pool.root)) await this.#remove(join(this.pool.root, place));
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

  async #copy(source: string, target: string, { signal, progress }: WatchOptions = {}): Promise<void> {
    await copyTree(this.#host, source, target, { reflink: this.#reflink ? "always" : "auto", signal, progress });
    await flush(this.#host, target);
  }

  /** Makes an empty directory whose project counts from its first file on. */
  async #makeVolume(volume: Volume): Promise<void> {
    await makeNew(this.pool, volume);
    if (this.#hasQuotas) await this.#host.quotas.assign(this.path(volume));
  }

  /** Makes an empty directory without a project: snapshots are not counted. */
  async #makeSnapshot(snapshot: Volume): Promise<void> {
    await makeParent(this.path(snapshot));
    await makeNew(this.pool, snapshot);
  }

  async #remove(path: string): Promise<void> {
    await this.#host.quotas.release(path);
    await removeTree(this.#host, path);
  }

  async #limit(volume: Volume, sizeBytes: bigint | undefined, evenBelowUse = false): Promise<void> {
    const { quota } = this.absent;
    if (quota !== undefined) throw new LidoError("bad_request", `Cannot limit ${describe(volume)}: ${quota}`);
    const { quotas } = this.#host, path = this.path(volume);
    let usage = await quotas.usage(path);
    if (!usage) {
      if (sizeBytes === undefined) return;
      await quotas.adopt(path); // made before the filesystem had quotas
      usage = await quotas.usage(path);
    }
    if (sizeBytes !== undefined && !evenBelowUse) refuseBelowUse(volume, sizeBytes, usage?.usedBytes ?? 0n);
    await quotas.limit(path, sizeBytes);
    await flush(this.#host, path);
  }

  #snapshots(): Snapshots {
    return {
      cost: this.#reflink ? "reflink" : "copy",
      create: async (snapshot, options) => {
        const { snapshot: _, ...volume } = snapshot;
        await this.#makeSnapshot(snapshot);
        await this.#copy(this.path(volume), this.path(snapshot), options);
      },
      delete: async (snapshot) => {
        await removeTree(this.#host, this.path(snapshot));
        await dropEmptyParent(this.path(snapshot));
      },
      // deno-lint-ignore require-await -- async in the contract
      rename: async (snapshot, name) => renameSnapshot(this.pool, snapshot, name),
      restore: async (snapshot, _lost, watch) => {
        const { snapshot: _, ...volume } = snapshot;
        const temporary = join(this.pool.root, temporaryOf(volume, "restore"));
        await this.#remove(temporary);
        const limit = await this.facets.quota?.get(volume);
        // The copy gets a project of its own: both exist for a while, and one limit would be too small for two.
        await mkdir(temporary, { mode: 0o700 });
        if (this.#hasQuotas) await this.#host.quotas.assign(temporary);
        await this.#copy(this.path(snapshot), temporary, watch);
        if (limit !== undefined) await this.#host.quotas.limit(temporary, limit);
        exchange(temporary, this.path(volume));
      },
      afterRestore: (volume) => this.#remove(join(this.pool.root, temporaryOf(volume, "restore"))),
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
        // Only a volume gets a project, not a snapshot.
        if (target.snapshot !== undefined) await this.#makeSnapshot(target);
        else await this.#makeVolume(target);
        await this.#copy(this.path(source), this.path(target), options);
        if (options?.mode !== undefined) await setOwner(this.path(target), target, options);
        if (options?.sizeBytes !== undefined) await this.#limit(target, options.sizeBytes);
      },
    };
  }

  #quota(exemptsRoot: boolean): Quota {
    return {
      exemptsRoot,
      set: (volume, sizeBytes, options) => this.#limit(volume, sizeBytes, options?.evenBelowUse),
      get: async (volume) => (await this.#host.quotas.usage(this.path(volume)))?.limitBytes,
      usedBytes: async (volume) => {
        const usage = await this.#host.quotas.usage(this.path(volume));
        if (!usage) throw new LidoError("not_implemented", `The space of ${describe(volume)} is not counted`);
        return usage.usedBytes;
      },
      usedInodes: async (volume) => (await this.#host.quotas.usage(this.path(volume)))?.usedInodes,
    };
  }
}
