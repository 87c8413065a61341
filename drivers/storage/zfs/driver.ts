import type { Host } from "../../host/host.ts";
import { setOwner } from "../directory_volumes.ts";
import { isFalse } from "../keys.ts";
import { refuseMountedElsewhere, unmountBelow } from "../volume_mounts.ts";
import type {
  CreateOptions,
  Driver,
  Facets,
  Health,
  Leftover,
  Pool,
  Quota,
  Resize,
  Resources,
  Volume,
} from "../driver.ts";
import { LidoError } from "../../../api/errors.ts";
import { ZfsClone, ZfsSend } from "./copies.ts";
import { RetainedDatasets } from "./retained.ts";
import { names } from "./layout.ts";
import { Mountpoints } from "./mountpoints.ts";
import { type Dataset, parseBytes } from "./output.ts";
import { allLimits, allProperties, createProperties, explainLimit, usesReferenced } from "./properties.ts";
import { ZfsSnapshots } from "./snapshots.ts";
import { absenceOf } from "./state.ts";
import type { ZfsTool } from "./tool.ts";

/** An open ZFS pool, or a dataset of one. A volume is a dataset with `mountpoint=legacy`; a snapshot is `@snapshot-NAME`; an image is cloned from
 * its snapshot `@readonly`. */
export class ZfsDriver implements Driver {
  readonly idmappedMounts: boolean;
  readonly mountsVolumes = true;
  readonly #host: Host;
  readonly #pool: { -readonly [Key in keyof Pool]: Pool[Key] };
  readonly #tool: ZfsTool;
  readonly #mountpoints: Mountpoints;
  readonly #kept: RetainedDatasets;
  /** Top dataset of the storage pool: `zfs.pool_name`. */
  readonly #top: string;
  readonly #snapshots: ZfsSnapshots;
  readonly #facets: Omit<Facets, "resize"> & Partial<Pick<Facets, "resize">>;

  constructor(host: Host, pool: Pool, tool: ZfsTool, options: { idmappedMounts: boolean; resize?: Resize }) {
    this.#host = host;
    this.#pool = { ...pool };
    this.#tool = tool;
    this.#top = names.top(pool);
    this.#mountpoints = new Mountpoints(host, this.#pool, tool);
    this.#kept = new RetainedDatasets(tool, this.#top);
    this.idmappedMounts = options.idmappedMounts;
    const parts = { pool: this.#pool, tool, mountpoints: this.#mountpoints, kept: this.#kept };
    this.#snapshots = new ZfsSnapshots(parts);
    this.#facets = {
      snapshot: this.#snapshots,
      clone: new ZfsClone(parts),
      send: new ZfsSend(parts),
      quota: this.#quota(),
      health: this.#health(),
      ...(options.resize ? { resize: options.resize } : {}),
    };
  }

  get pool(): Pool {
    return this.#pool;
  }

  get facets(): Readonly<Partial<Facets>> {
    const { clone: _, ...others } = this.#facets;
    return this.#copiesWhole ? others : this.#facets;
  }

  get absent(): Readonly<Partial<Record<keyof Facets, string>>> {
    return {
      ...(this.#copiesWhole ? { clone: "zfs.clone_copy is false" } : {}),
      ...(this.#facets.resize ? {} : { resize: "the pool is not on a loop file" }),
    };
  }

  get #copiesWhole(): boolean {
    return isFalse(this.#pool.config["zfs.clone_copy"]);
  }

  absence(): string | undefined {
    return absenceOf(names.zpool(this.#top));
  }

  configure(config: Pool["config"]): void {
    this.#pool.config = config;
  }

  path(volume: Volume): string {
    return this.#mountpoints.path(volume);
  }

  /** Costs one process. */
  async create(volume: Volume, options: CreateOptions = {}): Promise<void> {
    await this.#limited(
      this.#tool.create(names.dataset(this.#top, volume), createProperties(this.#pool, volume, options.sizeBytes)),
    );
    await this.#mountpoints.while(volume, (path) => setOwner(path, volume, options));
  }

  async delete(volume: Volume): Promise<void> {
    const dataset = names.dataset(this.#top, volume);
    await refuseMountedElsewhere(
      this.#host,
      this.#pool,
      volume,
      (source) => source === dataset || source.startsWith(`${dataset}@`),
    );
    await this.#mountpoints.unmountAll(volume);
    if (this.#snapshots.isCutOff(volume)) await this.#snapshots.afterRestore(volume);
    await this.#kept.deleteVolume(volume);
  }

  exists(volume: Volume): Promise<boolean> {
    return this.#tool.exists(names.of(this.#top, volume));
  }

  /** No snapshot exists without its volume. */
  isTaken(volume: Volume): Promise<boolean> {
    return this.exists({ type: volume.type, name: volume.name });
  }

  async rename(volume: Volume, name: string): Promise<void> {
    await this.#mountpoints.unmountAll(volume);
    const target = names.dataset(this.#top, { type: volume.type, name });
    if (await this.#tool.rename(names.dataset(this.#top, volume), target)) return;
    // A second call, after a kill, finds the rename done.
    if (!await this.#tool.exists(target)) throw new LidoError("not_found", `Dataset "${target}" does not exist`);
  }

  mount(volume: Volume): Promise<void> {
    return this.#mountpoints.mount(volume);
  }

  unmount(volume: Volume): Promise<void> {
    return this.#mountpoints.unmount(volume);
  }

  async configureVolume(volume: Volume, sizeBytes: bigint | undefined): Promise<void> {
    const dataset = names.dataset(this.#top, volume), properties = allProperties(this.#pool, volume, sizeBytes);
    await this.#limited(this.#tool.set(dataset, properties));
    if (properties.recordsize === undefined) await this.#tool.inherit(dataset, "recordsize");
  }

  async list(): Promise<Volume[]> {
    const found = await this.#tool.names(this.#top);
    // Not an empty list: the volumes of a missing dataset must not be taken for lost.
    if (found.length === 0) throw this.#missing(this.#top);
    return found.flatMap((name) => names.volume(this.#top, name) ?? []);
  }

  async leftovers(): Promise<Leftover[]> {
    const restored = (name: string) => names.isRestored(this.#top, name) && !names.isSnapshot(name);
    return this.#kept.leftovers(await this.#tool.list(this.#top)).map((one) => {
      const dataset = `${this.#top}/${one.place}`;
      const remove = () => this.#snapshots.afterRestore(names.restoredVolume(this.#top, dataset));
      return restored(dataset) ? { ...one, remove } : one;
    });
  }

  /** Rolls back or completes what a killed daemon left, when the pool is opened. @param found All datasets and snapshots of the pool. */
  async clean(found: readonly Dataset[]): Promise<void> {
    for (const { name } of found) {
      if (names.isTransferSnapshot(name)) await this.#tool.destroy(name);
      if (names.isRestored(this.#top, name) && !names.isSnapshot(name)) {
        await this.#snapshots.afterRestore(names.restoredVolume(this.#top, name));
      }
    }
    await this.#kept.reap(found);
  }

  async resources(): Promise<Resources> {
    const [used, available] = (await this.#get(this.#top, "used", "available")).map((value) => parseBytes(value) ?? 0n);
    // ZFS makes inodes as needed: there is no total.
    return { space: { used: used!, total: used! + available! }, inodes: { used: 0n, total: 0n } };
  }

  async refuseDestroy(): Promise<void> {
    const foreign = await this.#foreign();
    if (foreign !== undefined) throw new LidoError("bad_request", `ZFS pool has leftover datasets: ${foreign}`);
  }

  async close(): Promise<void> {
    await unmountBelow(this.#host, this.#pool.root, "zfs");
    // Others may have datasets in the ZFS pool, which must stay imported.
    if (isFalse(this.#pool.config["zfs.export"]) || this.#top.includes("/") || await this.#foreign() !== undefined) {
      return;
    }
    await this.#tool.exportPool(this.#top);
  }

  /** @returns The name of a dataset in the pool that is not lido's. */
  async #foreign(): Promise<string | undefined> {
    return (await this.#tool.names(this.#top)).find((name) => !names.isOurs(this.#top, name));
  }

  /** @throws {LidoError} unavailable. */
  async #get(dataset: string, ...properties: string[]): Promise<string[]> {
    const values = await this.#tool.get(dataset, ...properties);
    if (!values) throw this.#missing(dataset);
    return values;
  }

  #missing(dataset: string): LidoError {
    return new LidoError("unavailable", this.absence() ?? `ZFS dataset "${dataset}" does not exist`);
  }

  async #limited<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      throw explainLimit(error);
    }
  }

  #quota(): Quota {
    return {
      set: async (volume, sizeBytes) => {
        await this.#limited(
          this.#tool.set(names.dataset(this.#top, volume), allLimits(this.#pool, volume, sizeBytes)),
        );
      },
      get: async (volume) => {
        const limits = (await this.#get(names.dataset(this.#top, volume), "quota", "refquota")).map(parseBytes);
        return limits.find((limit) => limit !== undefined && limit > 0n);
      },
      usedBytes: async (volume) => {
        // A snapshot's "used" is only the space that nothing else references.
        const isReferenced = volume.snapshot !== undefined || usesReferenced(this.#pool, volume);
        const property = isReferenced ? "referenced" : "used";
        return parseBytes((await this.#get(names.dataset(this.#top, volume), property))[0]!) ?? 0n;
      },
    };
  }

  #health(): Health {
    return {
      check: async () => {
        const { state, scan, errors } = await this.#tool.status(names.zpool(this.#top));
        const isWell = state === "ONLINE" && errors === "No known data errors";
        return { ok: isWell, text: [state, scan ?? "never scrubbed", errors].filter(Boolean).join("; ") };
      },
    };
  }
}
