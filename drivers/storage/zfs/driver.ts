import { createHash, randomUUID } from "node:crypto";
import { chmod, chown, mkdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { LidoError } from "../../../api/errors.ts";
import type { Host } from "../../host/host.ts";
import type {
  Clone,
  CopyOptions,
  CreateOptions,
  Driver,
  Facets,
  Health,
  Leftover,
  Pool,
  Quota,
  Resize,
  Resources,
  Send,
  Snapshots,
  Volume,
} from "../driver.ts";
import { describe, directories, names } from "./layout.ts";
import type { Dataset, ZfsTool } from "./tool.ts";

/** An open ZFS pool (or a dataset of one). A volume is a dataset with `mountpoint=legacy`, mounted by us; a snapshot is
 * `@snapshot-<name>`; an image is cloned from its `@readonly`. ZFS keeps a dataset that others were cloned from, so a volume whose clones
 * outlive it moves to `deleted/` and is destroyed with the last of them. */
export class ZfsDriver implements Driver {
  readonly pool: Pool;
  readonly facets: Readonly<Partial<Facets>>;
  readonly absent: Readonly<Partial<Record<keyof Facets, string>>>;
  readonly idmappedMounts: boolean;
  readonly mountsVolumes = true;
  readonly #host: Host;
  readonly #tool: ZfsTool;
  /** Top of what is ours: `zfs.pool_name`. */
  readonly #top: string;

  constructor(host: Host, pool: Pool, tool: ZfsTool, options: { idmappedMounts: boolean; resize?: Resize }) {
    this.#host = host;
    this.pool = pool;
    this.#tool = tool;
    this.#top = names.top(pool);
    this.idmappedMounts = options.idmappedMounts;
    const copies = pool.config["zfs.clone_copy"] === "false";
    this.facets = {
      snapshot: this.#snapshots(),
      quota: this.#quota(),
      send: this.#send(),
      health: this.#health(),
      ...(copies ? {} : { clone: this.#clone() }),
      ...(options.resize ? { resize: options.resize } : {}),
    };
    this.absent = {
      ...(copies ? { clone: "zfs.clone_copy is false" } : {}),
      ...(options.resize ? {} : { resize: "the pool is not on a loop file" }),
    };
  }

  path(volume: Volume): string {
    return join(this.pool.root, directories.of(volume));
  }

  async create(volume: Volume, options: CreateOptions = {}): Promise<void> {
    await this.#tool.create(names.dataset(this.#top, volume), {
      ...this.#volumeProperties(volume),
      ...this.#quotaProperties(volume, options.sizeBytes),
    });
    await this.mount(volume);
    const path = this.path(volume);
    await chown(path, options.uid ?? 0, options.gid ?? 0);
    await chmod(path, options.mode ?? 0o711);
  }

  async delete(volume: Volume): Promise<void> {
    await this.unmount(volume);
    const dataset = names.dataset(this.#top, volume);
    const found = await this.#tool.list(dataset);
    if (found.length === 0) return;
    for (const snapshot of found) {
      const at = names.volume(this.#top, snapshot.name)?.snapshot;
      if (at !== undefined) await this.unmount({ ...volume, snapshot: at });
    }
    await rm(join(this.pool.root, directories.snapshotsOf(volume)), { recursive: true, force: true });
    await this.#destroyOrKeep(
      dataset,
      found,
      `${this.#top}/deleted/${directories.typeOf(volume.type)}/${randomUUID()}`,
    );
  }

  async exists(volume: Volume): Promise<boolean> {
    const name = volume.snapshot === undefined ? names.dataset(this.#top, volume) : names.snapshot(this.#top, volume);
    return (await this.#tool.list(name)).length > 0;
  }

  async rename(volume: Volume, name: string): Promise<void> {
    const target = { ...volume, name };
    await this.unmount(volume);
    await this.#tool.rename(names.dataset(this.#top, volume), names.dataset(this.#top, target));
    await this.mount(target);
  }

  /** A snapshot is mounted read-only, as ZFS has it. Without a helper process: mount(2) takes a legacy dataset by name. */
  async mount(volume: Volume): Promise<void> {
    const path = this.path(volume);
    if (await this.#host.mounts.at(path)) return;
    await mkdir(path, { recursive: true, mode: 0o711 });
    const source = volume.snapshot === undefined ? names.dataset(this.#top, volume) : names.snapshot(this.#top, volume);
    await this.#host.mounts.mount(source, path, "zfs", volume.snapshot === undefined ? [] : ["ro"]);
  }

  async unmount(volume: Volume): Promise<void> {
    const path = this.path(volume);
    await this.#host.mounts.unmount(path);
    await rmdir(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
  }

  async list(): Promise<Volume[]> {
    const found = await this.#tool.list(this.#top);
    return found.flatMap(({ name }) => names.volume(this.#top, name) ?? []);
  }

  /** Each change of a dataset is one step of ZFS. */
  leftovers(): Promise<Leftover[]> {
    return Promise.resolve([]);
  }

  async resources(): Promise<Resources> {
    const [used, available] = (await this.#tool.get(this.#top, "used", "available")).map(BigInt);
    // ZFS makes inodes as it needs them: there is no total to tell.
    return { space: { used: used!, total: used! + available! }, inodes: { used: 0n, total: 0n } };
  }

  async close(): Promise<void> {
    for (const { target, type } of (await this.#host.mounts.list()).reverse()) {
      if (type === "zfs" && target.startsWith(this.pool.root + "/")) await this.#host.mounts.unmount(target);
    }
    if (this.pool.config["zfs.export"] !== "false" && !this.#top.includes("/")) await this.#tool.exportPool(this.#top);
  }

  /** Destroys what was kept for its clones and has none left, and copy snapshots whose copy never came to be. Called when the pool is opened. */
  async reap(): Promise<void> {
    const found = await this.#tool.list(this.#top);
    for (const { name, clones } of found) {
      if (clones.length === 0 && names.isCopySnapshot(name)) await this.#tool.destroy(name);
    }
    const kept = found.filter(({ name }) => names.isKept(this.#top, name));
    for (const { name } of kept) {
      const own = found.filter((one) => one.name === name || one.name.startsWith(`${name}@`));
      if (own.every(({ clones }) => clones.length === 0)) await this.#tool.destroy(name);
    }
  }

  /** @param found The dataset and its snapshots. */
  async #destroyOrKeep(dataset: string, found: readonly Dataset[], kept: string): Promise<void> {
    if (found.some(({ clones }) => clones.length > 0)) {
      await this.#tool.rename(dataset, kept);
      return;
    }
    await this.#tool.destroy(dataset);
    await this.#reapOrigin(found.find(({ name }) => name === dataset)?.origin);
  }

  /** The last clone is gone: so goes the snapshot it came from, if that was only kept for it, and the dataset above it likewise. */
  async #reapOrigin(origin: string | undefined): Promise<void> {
    if (origin === undefined) return;
    const dataset = origin.slice(0, origin.indexOf("@"));
    const found = await this.#tool.list(dataset);
    const snapshot = found.find(({ name }) => name === origin);
    if (snapshot && snapshot.clones.length === 0 && (names.isCopySnapshot(origin) || names.isDeletedSnapshot(origin))) {
      await this.#tool.destroy(origin);
    }
    if (names.isKept(this.#top, dataset) && found.every(({ clones }) => clones.length === 0)) {
      await this.#tool.destroy(dataset);
      await this.#reapOrigin(found.find(({ name }) => name === dataset)?.origin);
    }
  }

  #volumeProperties(volume: Volume): Record<string, string> {
    const blocksize = volume.config?.["zfs.blocksize"];
    return blocksize ? { recordsize: blocksize } : {};
  }

  #quotaProperties(volume: Volume, sizeBytes: bigint | undefined): Record<string, string> {
    const size = sizeBytes === undefined ? "none" : String(sizeBytes);
    const referenced = volume.config?.["zfs.use_refquota"] === "true";
    const reserved = volume.config?.["zfs.reserve_space"] === "true";
    if (sizeBytes === undefined) return {};
    return {
      [referenced ? "refquota" : "quota"]: size,
      ...(reserved ? { [referenced ? "refreservation" : "reservation"]: size } : {}),
    };
  }

  #snapshots(): Snapshots {
    return {
      cost: "instant",
      create: (snapshot) => this.#tool.snapshot(names.snapshot(this.#top, snapshot)),
      delete: async (snapshot) => {
        await this.unmount(snapshot);
        const name = names.snapshot(this.#top, snapshot);
        const found = (await this.#tool.list(name))[0];
        if (!found) return;
        if (found.clones.length === 0) return await this.#tool.destroy(name);
        await this.#tool.rename(name, `${name.slice(0, name.indexOf("@"))}@deleted-${randomUUID()}`);
      },
      rename: async (snapshot, name) => {
        await this.unmount(snapshot);
        await this.#tool.rename(
          names.snapshot(this.#top, snapshot),
          names.snapshot(this.#top, { ...snapshot, snapshot: name }),
        );
      },
      restore: (snapshot) => this.#restore(snapshot),
      afterRestore: () => Promise.resolve(), // a rollback leaves nothing
      list: async (parent) =>
        (await this.#tool.list(names.dataset(this.#top, parent))).flatMap(({ name }) =>
          names.volume(this.#top, name)?.snapshot ?? []
        ),
    };
  }

  /** ZFS goes back only to the latest snapshot; the later ones would be lost with their records, so that is the server's to decide. */
  async #restore(snapshot: Volume): Promise<void> {
    const name = names.snapshot(this.#top, snapshot);
    const found = await this.#tool.list(names.dataset(this.#top, snapshot));
    const later = found.slice(found.findIndex((one) => one.name === name) + 1).filter(({ name }) => name.includes("@"));
    if (later.length > 0) {
      throw new LidoError(
        "bad_request",
        `Snapshot "${snapshot.snapshot}" cannot be restored due to subsequent snapshot(s). Set zfs.remove_snapshots to override`,
      );
    }
    await this.#tool.rollback(name);
  }

  #clone(): Clone {
    return {
      cost: "instant",
      clone: async (source, target, options: CopyOptions = {}) => {
        const origin = await this.#originFor(source, target);
        await this.#tool.clone(origin, names.dataset(this.#top, target), {
          ...this.#volumeProperties(target),
          ...this.#quotaProperties(target, options.sizeBytes),
        });
        await this.mount(target);
      },
    };
  }

  /** The snapshot to clone `source` from; made when there is none. Its name follows from the target, so that a second try finds it. */
  async #originFor(source: Volume, target: Volume): Promise<string> {
    if (source.snapshot !== undefined) return names.snapshot(this.#top, source);
    const dataset = names.dataset(this.#top, source);
    const suffix = source.type === "image"
      ? "readonly"
      : `copy-${createHash("sha256").update(directories.of(target)).digest("hex").slice(0, 32)}`;
    const name = `${dataset}@${suffix}`;
    if ((await this.#tool.list(name)).length === 0) await this.#tool.snapshot(name);
    return name;
  }

  #quota(): Quota {
    return {
      set: async (volume, sizeBytes) => {
        const referenced = volume.config?.["zfs.use_refquota"] === "true";
        await this.#tool.set(names.dataset(this.#top, volume), {
          quota: "none",
          refquota: "none",
          reservation: "none",
          refreservation: "none",
          ...this.#quotaProperties(volume, sizeBytes),
          ...(sizeBytes === undefined || !referenced ? {} : { quota: "none" }),
        });
      },
      get: async (volume) => {
        const limits = await this.#tool.get(names.dataset(this.#top, volume), "quota", "refquota");
        const set = limits.find((limit) => limit !== "0" && limit !== "none" && limit !== "-");
        return set === undefined ? undefined : BigInt(set);
      },
      usedBytes: async (volume) => {
        const property = volume.config?.["zfs.use_refquota"] === "true" ? "referenced" : "used";
        return BigInt((await this.#tool.get(names.dataset(this.#top, volume), property))[0]!);
      },
    };
  }

  #send(): Send {
    return {
      format: "zfs",
      send: (volume, options = {}) => {
        if (volume.snapshot === undefined) {
          throw new LidoError("bad_request", `Cannot send ${describe(volume)}: only a snapshot can be sent`);
        }
        const parent = options.parent && names.snapshot(this.#top, options.parent);
        const { stdout, done } = this.#tool.send(names.snapshot(this.#top, volume), { parent, signal: options.signal });
        return { stream: stdout, done };
      },
      receive: async (volume, stream: Readable, options = {}) => {
        const target = volume.snapshot === undefined
          ? names.dataset(this.#top, volume)
          : names.snapshot(this.#top, volume);
        await this.#tool.receive(target, stream, options.signal).done;
        if (volume.snapshot === undefined) await this.mount(volume);
      },
    };
  }

  #health(): Health {
    return {
      check: async () => {
        const health = (await this.#tool.pools()).get(names.zpool(this.pool)) ?? "UNAVAIL";
        return { ok: health === "ONLINE", text: health };
      },
    };
  }
}
