import { chmod, chown, mkdir, readdir, statfs } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { Readable } from "node:stream";
import { LidoError } from "../../../api/errors.ts";
import { pathInSubvolume, streamUuidOf, subvolumeHasChildren } from "../../host/btrfs/ioctl.ts";
import { copyNested } from "../../host/btrfs/nested.ts";
import { hasQuota, limitQuotaGroup, needsRescan, quotaGroup } from "../../host/btrfs/quota.ts";
import { exchange } from "../../host/files/exchange.ts";
import type { Host } from "../../host/host.ts";
import {
  dropEmptyParent,
  isTaken,
  makeParent,
  pathExists,
  pathOf,
  refuseThere,
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
  Health,
  Leftover,
  NestedStreams,
  Pool,
  Quota,
  Resize,
  Resources,
  Send,
  Snapshots,
  Volume,
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
import { flush, removeTree, syncPath } from "../tree.ts";
import { checkedPath, makeRoom, NestedCopies, nestedIn, removePlaceholders, sealPaths } from "./nested.ts";
import { StreamGuard } from "./stream.ts";
import { streamUuid } from "./stream_format.ts";
import { withOwnNames } from "./stream_names.ts";
import { type BtrfsTool, isSubvolume } from "./tool.ts";

/** An open btrfs pool: a subvolume for each volume, a read-only snapshot for each snapshot. */
export class BtrfsDriver implements Driver {
  readonly pool: Pool;
  readonly facets: Readonly<Partial<Facets>>;
  readonly absent: Readonly<Partial<Record<keyof Facets, string>>>;
  readonly idmappedMounts: boolean;
  readonly mountsVolumes = false;
  readonly #host: Host;
  readonly #tool: BtrfsTool;
  readonly #onClose: () => Promise<void>;

  /** @param options.onClose Detaches the loop device that `open` attached. */
  constructor(
    host: Host,
    pool: Pool,
    tool: BtrfsTool,
    options: { idmappedMounts: boolean; resize?: Resize; onClose: () => Promise<void> },
  ) {
    this.#host = host;
    this.pool = pool;
    this.#tool = tool;
    this.idmappedMounts = options.idmappedMounts;
    this.#onClose = options.onClose;
    this.facets = {
      snapshot: this.#snapshots(),
      clone: this.#clone(),
      quota: this.#quota(),
      send: this.#send(),
      health: this.#health(),
      ...(options.resize ? { resize: options.resize } : {}),
    };
    this.absent = options.resize ? {} : { resize: "the pool is not on a loop file" };
  }

  path(volume: Volume): string {
    return pathOf(this.pool, volume);
  }

  async create(volume: Volume, options: CreateOptions = {}): Promise<void> {
    const path = this.path(volume);
    await refuseThere(this.pool, volume);
    await this.#tool.create(path);
    await setOwner(path, volume, options);
    if (options.sizeBytes === undefined) return await syncPath(path);
    await this.#limit(volume, options.sizeBytes);
    await this.#flush();
  }

  async delete(volume: Volume): Promise<void> {
    const { snapshot: _, ...parent } = volume;
    const snapshotsPath = join(this.pool.root, snapshotsDirectory(parent));
    const snapshots = await this.facets.snapshot!.list(parent);
    await this.#remove(
      join(this.pool.root, temporaryOf(parent, "restore")),
      ...snapshots.map((name) => join(snapshotsPath, name)),
      this.path(parent),
    );
    for (const purpose of ["send", "receive"]) await this.#removeLeftover(temporaryOf(parent, purpose));
    await removeTree(this.#host, snapshotsPath);
    if (snapshots.length > 0) await syncPath(dirname(snapshotsPath));
  }

  exists(volume: Volume): Promise<boolean> {
    return pathExists(this.path(volume));
  }

  async unfit(volume: Volume): Promise<string | undefined> {
    const reason = await unfitDirectory(this.pool, volume);
    return reason ?? (await isSubvolume(this.path(volume)) ? undefined : "it is a directory and no subvolume");
  }

  isTaken(volume: Volume): Promise<boolean> {
    return isTaken(this.pool, volume);
  }

  async rename(volume: Volume, name: string): Promise<void> {
    await renameVolume(this.pool, volume, name);
    await this.#flush();
  }

  /** Nothing to mount: the pool is mounted as a whole. */
  async mount(): Promise<void> {}
  async unmount(): Promise<void> {}

  list(): Promise<Volume[]> {
    return listDirectories(this.pool.root);
  }

  async leftovers(): Promise<Leftover[]> {
    const places = [...await listTemporaries(this.pool.root), ...await listEmpty(this.pool.root)];
    return places.map((place) => ({ place, of: ownerOf(place), remove: () => this.#removeLeftover(place) }));
  }

  /** Deletes what a killed daemon left. */
  async sweep(): Promise<void> {
    for (const place of await listTemporaries(this.pool.root)) await this.#removeLeftover(place);
    this.#tool.dropStaleGroups(this.pool.root);
  }

  async resources(): Promise<Resources> {
    // btrfs makes inodes as needed: statfs reports 0 of 0.
    const { blocks, bfree, bsize, files, ffree } = await statfs(this.pool.root, { bigint: true });
    return {
      space: { used: (blocks - bfree) * bsize, total: blocks * bsize },
      inodes: { used: files - ffree, total: files },
    };
  }

  async close(): Promise<void> {
    await this.#host.mounts.unmount(this.pool.root);
    await this.#onClose();
  }

  async #removeLeftover(place: string): Promise<void> {
    const path = join(this.pool.root, place);
    if (await isSubvolume(path)) await this.#tool.delete(path);
    else await removeReceived(this.#host, this.#tool, path);
  }

  /** Removes subvolumes, or plain directories that a killed receive may have left; a missing path is skipped. */
  async #remove(...paths: string[]): Promise<void> {
    const subvolumes: string[] = [];
    for (const path of paths) {
      if (await isSubvolume(path)) subvolumes.push(path);
      else await removeTree(this.#host, path);
    }
    await this.#tool.delete(...subvolumes);
  }

  /** Copies a subvolume. A snapshot leaves out nested subvolumes: they are added one by one. They stay read-only or writable as they are: the
   * snapshot's directory lets only root in, and a restore must bring them back as they were. */
  async #copy(source: string, target: string, options: { readonly: boolean }): Promise<void> {
    const hasNested = subvolumeHasChildren(source);
    await this.#tool.snapshot(source, target, { readonly: options.readonly && !hasNested });
    if (hasNested) await copyNested(source, target, options);
  }

  /** The kernel writes changes other than snapshots and deletions to the disk only with its next transaction, up to half a minute later. */
  #flush(): Promise<void> {
    return flush(this.#host, this.pool.root);
  }

  async #limit(volume: Volume, sizeBytes: bigint | undefined, evenBelowUse = false): Promise<void> {
    const path = this.path(volume);
    if (sizeBytes === undefined) return void limitQuotaGroup(path, undefined);
    if (!hasQuota(path)) await this.#tool.enableQuota(this.pool.root);
    else if (needsRescan(path)) await this.#tool.rescan(this.pool.root);
    if (!evenBelowUse) {
      await this.#flush(); // count what was written a moment ago
      refuseBelowUse(volume, sizeBytes, quotaGroup(path)?.referencedBytes ?? 0n);
    }
    if (!limitQuotaGroup(path, sizeBytes)) {
      throw new LidoError("bad_request", `Cannot limit ${describe(volume)}: quotas were switched off meanwhile`);
    }
  }

  #snapshots(): Snapshots {
    return {
      cost: "instant",
      create: async (snapshot) => {
        const { snapshot: _, ...parent } = snapshot;
        await refuseThere(this.pool, snapshot);
        await makeParent(this.path(snapshot));
        await this.#copy(this.path(parent), this.path(snapshot), { readonly: true });
      },
      delete: async (snapshot) => {
        await this.#remove(this.path(snapshot));
        const path = this.path(snapshot);
        if (await dropEmptyParent(path)) await syncPath(dirname(dirname(path)));
      },
      rename: async (snapshot, name) => {
        renameSnapshot(this.pool, snapshot, name);
        await this.#flush();
      },
      restore: async (snapshot) => {
        const { snapshot: _, ...parent } = snapshot;
        const temporary = join(this.pool.root, temporaryOf(parent, "restore"));
        await this.#remove(temporary);
        await this.#copy(this.path(snapshot), temporary, { readonly: false });
        limitQuotaGroup(temporary, quotaGroup(this.path(parent))?.limitBytes);
        exchange(temporary, this.path(parent));
        try {
          await this.#flush();
        } catch (error) {
          exchange(temporary, this.path(parent)); // a caller that gets an error must find the previous content
          throw error;
        }
      },
      afterRestore: (parent) => this.#remove(join(this.pool.root, temporaryOf(parent, "restore"))),
      list: (parent) =>
        readdir(join(this.pool.root, snapshotsDirectory(parent))).catch((error: NodeJS.ErrnoException) => {
          if (error.code === "ENOENT") return [];
          throw error;
        }),
    };
  }

  #clone(): Clone {
    return {
      cost: "instant",
      carriesSnapshots: true,
      clone: async (source, target, options = {}) => {
        const path = this.path(target);
        await refuseThere(this.pool, target);
        if (target.snapshot !== undefined) await makeParent(path);
        await this.#copy(this.path(source), path, { readonly: target.snapshot !== undefined });
        if (options.mode !== undefined) {
          await chown(path, options.uid ?? 0, options.gid ?? 0);
          await chmod(path, options.mode);
        }
        // The kernel gives a snapshot its source's limit; a copy gets its own or none.
        if (target.snapshot === undefined) await this.#limit(target, options.sizeBytes);
        // The kernel reports a snapshot as made only once it is on the disk.
        if (options.sizeBytes !== undefined) await this.#flush();
        else if (options.mode !== undefined) await syncPath(path);
      },
    };
  }

  #quota(): Quota {
    return {
      set: async (volume, sizeBytes, options) => {
        await this.#limit(volume, sizeBytes, options?.evenBelowUse);
        await this.#flush();
      },
      // deno-lint-ignore require-await -- async: an error rejects the promise
      get: async (volume) => quotaGroup(this.path(volume))?.limitBytes,
      usedBytes: async (volume) => {
        const path = this.path(volume);
        if (!hasQuota(path)) throw new LidoError("not_implemented", "Quotas are not enabled on this pool");
        await this.#flush();
        return quotaGroup(path)?.referencedBytes ?? 0n;
      },
    };
  }

  #send(): Send {
    return {
      format: "btrfs",
      isChained: false,
      backup: {
        inspect: () => {
          const guard = new StreamGuard();
          return (stream) => guard.check(stream);
        },
        uuidOf: streamUuid,
        nested: (states) => this.#nested(states),
        receiveNested: async (volume, { path, parent }, stream, options = {}) => {
          const base = parent && checkedPath(this.path(parent), path);
          const target = await makeRoom(this.path(volume), path);
          await this.#receive(
            volume,
            stream,
            { ...options, base },
            (received) => this.#tool.snapshot(received, target, { readonly: false }),
          );
        },
        completeNested: async (volume, readonly) => {
          sealPaths(this.path(volume), [...readonly, ...(volume.snapshot === undefined ? [] : [""])]);
          await this.#flush();
        },
      },
      send: (volume, options = {}) => {
        if (volume.snapshot === undefined) {
          throw new LidoError("bad_request", `Cannot send ${describe(volume)}: only a snapshot can be sent`);
        }
        const parent = options.parent && this.path(options.parent);
        const { stdout, done } = this.#tool.send(this.path(volume), { parent, signal: options.signal });
        return { stream: stdout, done };
      },
      receive: async (volume, stream, options = {}) => {
        await refuseThere(this.pool, volume);
        const { parent, signal } = options;
        const target = this.path(volume);
        await this.#receive(
          volume,
          stream,
          { base: parent && this.path(parent), signal },
          async (made) => {
            // A read-only subvolume cannot be moved to another directory (EROFS): a snapshot of it can be made there.
            if (volume.snapshot !== undefined) await makeParent(target);
            await this.#tool.snapshot(made, target, { readonly: volume.snapshot !== undefined });
          },
        );
        if (volume.snapshot === undefined) await this.#limit(volume, options.sizeBytes);
        if (options.sizeBytes !== undefined) await this.#flush();
      },
    };
  }

  /** Receives a stream. @param options.base Path of the subvolume it may be based on. @param place Moves the received subvolume to its place. */
  async #receive(
    volume: Volume,
    stream: Readable,
    options: { base?: string | undefined; signal?: AbortSignal | undefined },
    place: (received: string) => Promise<void>,
  ): Promise<void> {
    // The stream chooses its subvolume's name, so it is received into a directory of its own and then moved.
    const { snapshot: _, ...parent } = volume;
    const directory = join(this.pool.root, temporaryOf(parent, "receive"));
    const made = receivedIn(directory);
    await mkdir(made, { recursive: true, mode: 0o700 });
    await using undo = new AsyncDisposableStack();
    const base = options.base === undefined ? undefined : await this.#bare(volume, options.base, undo);
    const named = Readable.from(withOwnNames(stream, base === undefined ? undefined : streamUuidOf(base)), {
      objectMode: false,
    });
    await this.#tool.receive(directory, named, {
      ...(base === undefined ? {} : { base: { path: base, place: this.#placeOf(base) } }),
      ...(options.signal ? { signal: options.signal } : {}),
    }).done;
    const [name] = await readdir(made);
    if (name === undefined) throw new LidoError("bad_request", "The stream holds no subvolume");
    await place(join(made, basename(name)));
    await removeReceived(this.#host, this.#tool, directory);
  }

  /** @returns A subvolume with the content of the one at `path`, without nested subvolumes: a stream does not know them, and it may hold other
   * things where a snapshot has empty directories in their place. */
  async #bare(volume: Volume, path: string, undo: AsyncDisposableStack): Promise<string> {
    if (!subvolumeHasChildren(path)) return path;
    const { snapshot: _, ...parent } = volume;
    const place = temporaryOf(parent, "send");
    if (await pathExists(join(this.pool.root, place))) await this.#removeLeftover(place);
    undo.defer(() => this.#removeLeftover(place));
    await mkdir(join(this.pool.root, place), { mode: 0o700 });
    const copy = join(this.pool.root, place, "base");
    await this.#tool.snapshot(path, copy, { readonly: false });
    removePlaceholders(copy, nestedIn(path));
    return copy;
  }

  async #nested(states: readonly Volume[]): Promise<NestedStreams> {
    const { snapshot: _, ...volume } = states[0]!;
    const place = temporaryOf(volume, "send");
    await using undo = new AsyncDisposableStack();
    if (await pathExists(join(this.pool.root, place))) await this.#removeLeftover(place);
    undo.defer(() => this.#removeLeftover(place));
    const copies = new NestedCopies(join(this.pool.root, place));
    const found = [];
    for (const state of states) found.push(await copies.add(this.#tool, this.path(state)));
    const kept = undo.move();
    return {
      states: found,
      send: (state, path, { signal } = {}) => {
        const { copy, parent } = copies.of(state, path);
        const { stdout, done } = this.#tool.send(copy, {
          ...(parent ? { parent } : {}),
          ...(signal ? { signal } : {}),
        });
        return { stream: stdout, done };
      },
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  }

  /** @param path Below the pool's root. @returns Its path in the subvolume that contains the pool's root. */
  #placeOf(path: string): string {
    return join(pathInSubvolume(this.pool.root), relative(this.pool.root, path));
  }

  #health(): Health {
    return {
      check: async () => {
        const errors = [...await this.#tool.errors(this.pool.root)].map(([kind, count]) => `${kind} ${count}`);
        return errors.length === 0 ? { ok: true, text: "no device errors" } : { ok: false, text: errors.join(", ") };
      },
    };
  }
}

/** Directory in which a stream's subvolume is made. */
function receivedIn(directory: string): string {
  return join(directory, "received");
}

/** Deletes what was received, and the directory. An earlier version of lido received into the directory itself. */
async function removeReceived(host: Host, tool: BtrfsTool, directory: string): Promise<void> {
  const made = receivedIn(directory);
  if (!await isSubvolume(made)) await removeSubvolumes(host, tool, made);
  await removeSubvolumes(host, tool, directory);
}

/** Deletes a directory of subvolumes. They may be read-only, and then only `btrfs` can delete them. */
export async function removeSubvolumes(host: Host, tool: BtrfsTool, directory: string): Promise<void> {
  for (const name of await readdir(directory).catch(() => [])) {
    const entry = join(directory, name);
    if (await isSubvolume(entry)) await tool.delete(entry);
  }
  await removeTree(host, directory);
}
