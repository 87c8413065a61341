import { LidoError } from "../../../api/errors.ts";
import { parseSizeBytes } from "../../../api/size.ts";
import { setOwner } from "../directory_volumes.ts";
import {
  AlreadyThere,
  type CreateOptions,
  type Driver,
  Facets,
  Health,
  Leftover,
  Pool,
  Resize,
  Resources,
  Volume,
} from "../driver.ts";
import { filesystemDefault, type FilesystemType } from "./filesystem.ts";
import { isExisting, isOurs, mapperPath, parentOfTemporary, temporaryName, volumeOf } from "./layout.ts";
import { flush } from "../tree.ts";
import { refuseMountedElsewhere, unmountBelow } from "../volume_mounts.ts";
import { LvmClone } from "./clone.ts";
import type { LvmGroup } from "./group.ts";
import { LvmSnapshots } from "./snapshots.ts";
import { healthOf, thinStatus } from "./thin_status.ts";
import { LvmQuota } from "./volume_size.ts";

/** LXD's default for volumes that are block devices. */
export const sizeDefault = "10GiB";

/** An open LVM pool: a logical volume with a filesystem for each volume, active only while it is mounted. */
export class LvmDriver implements Driver {
  readonly facets: Readonly<Partial<Facets>>;
  readonly absent: Readonly<Partial<Record<keyof Facets, string>>>;
  readonly idmappedMounts: boolean;
  readonly mountsVolumes = true;
  readonly #group: LvmGroup;
  readonly #onClose: () => Promise<void>;

  /** @param options.onClose Releases the devices. */
  constructor(
    group: LvmGroup,
    options: { idmappedMounts: boolean; resize?: Resize; onClose: () => Promise<void> },
  ) {
    this.#group = group;
    this.idmappedMounts = options.idmappedMounts;
    this.#onClose = options.onClose;
    const { thinPool } = group;
    const quota = new LvmQuota(group);
    this.facets = {
      snapshot: new LvmSnapshots(group, quota),
      quota,
      ...(thinPool === undefined ? {} : { clone: new LvmClone(group, quota), health: this.#health(thinPool) }),
      ...(options.resize ? { resize: options.resize } : {}),
    };
    this.absent = {
      ...(thinPool === undefined
        ? {
          clone: "classic logical volumes share no blocks (lvm.use_thinpool is false)",
          health: "there is no thin pool that could run full",
        }
        : {}),
      ...(options.resize ? {} : { resize: "the pool is not on a loop file" }),
      send: "LVM has no stream format of its own",
    };
  }

  get pool(): Pool {
    return this.#group.pool;
  }

  configure(config: Pool["config"]): void {
    this.#group.configure(config);
  }

  path(volume: Volume): string {
    return this.#group.path(volume);
  }

  async mount(volume: Volume): Promise<void> {
    await this.#group.mount(volume);
  }

  async unmount(volume: Volume): Promise<void> {
    await this.#group.unmount(volume);
  }

  /** The kernel sets a thin pool that it cannot write to to mode "Fail"; the pool is opened again when its devices are back. */
  absence(): string | undefined {
    if (this.#group.status()?.mode !== "Fail") return undefined;
    return `Thin pool "${this.#group.thinPool}" of volume group "${this.#group.name}" has failed: one of its devices does not answer`;
  }

  async create(volume: Volume, options: CreateOptions = {}): Promise<void> {
    const name = this.#group.nameOf(volume);
    const sizeBytes = this.#group.extents(options.sizeBytes ?? this.#sizeDefault());
    this.#group.refuseFull();
    const config = volume.config ?? {};
    const type = (config["block.filesystem"] || this.pool.config["volume.block.filesystem"] ||
      filesystemDefault) as FilesystemType;
    const stripeBytes = config["lvm.stripes.size"] && parseSizeBytes(config["lvm.stripes.size"]);
    await this.#group.made(name, sizeBytes, () =>
      this.#group.tool.create(this.#group.name, name, {
        sizeBytes,
        ...(this.#group.thinPool === undefined ? {} : { thinPool: this.#group.thinPool }),
        ...(config["lvm.stripes"] ? { stripes: config["lvm.stripes"] } : {}),
        ...(stripeBytes ? { stripeBytes } : {}),
      }));
    await this.#group.filesystems.format(this.#group.device(name), type, {
      isZeroed: this.#group.thinPool !== undefined,
      words: (config["block.create_options"] ?? this.pool.config["volume.block.create_options"] ?? "").split(" ")
        .filter(
          Boolean,
        ),
    });
    this.#group.setType(name, type);
    await this.#group.mountAt(volume, name, type, []);
    await setOwner(this.path(volume), volume, options);
    await this.unmount(volume);
  }

  async delete(volume: Volume): Promise<void> {
    const { snapshot: _, ...parent } = volume;
    const name = this.#group.nameOf(parent);
    const snapshots = this.#group.snapshotNames(parent).map((snapshot): Volume => ({ ...parent, snapshot }));
    const devices = new Set([parent, ...snapshots].map((one) => mapperPath(this.#group.name, this.#group.nameOf(one))));
    await refuseMountedElsewhere(this.#group.host, this.pool, parent, (source) => devices.has(source));
    for (const one of [...snapshots, parent]) await this.#group.unmountOnly(one);
    const names = [
      ...snapshots.map((one) => this.#group.nameOf(one)),
      temporaryName(name, "new"),
      temporaryName(name, "old"),
      name,
    ];
    await this.#group.remove(...names);
  }

  // deno-lint-ignore require-await -- async in the contract
  async exists(volume: Volume): Promise<boolean> {
    return this.#group.has(this.#group.nameOf(volume));
  }

  // deno-lint-ignore require-await -- async in the contract
  async isTaken(volume: Volume): Promise<boolean> {
    return this.#group.has(this.#group.nameOf({ type: volume.type, name: volume.name })) ||
      this.#group.snapshotNames(volume).length > 0;
  }

  async rename(volume: Volume, name: string): Promise<void> {
    const { snapshot: _, ...parent } = volume;
    const all: Volume[] = [...this.#group.snapshotNames(parent).map((snapshot) => ({ ...parent, snapshot })), parent];
    const pairs = all.map((one) => ({ one, from: this.#group.nameOf(one), to: this.#group.nameOf({ ...one, name }) }))
      .filter(({ from }) => this.#group.has(from));
    for (const { to } of pairs) {
      if (this.#group.has(to)) throw new AlreadyThere(`logical volume "${this.#group.name}/${to}"`);
    }
    const done: typeof pairs = [];
    try {
      for (const pair of pairs) {
        await this.unmount(pair.one);
        await this.#group.renameLogical(pair.from, pair.to);
        done.unshift(pair);
      }
    } catch (error) {
      // A foreign logical volume has the new name: undo the renames done so far.
      if (error instanceof AlreadyThere) { for (const { from, to } of done) await this.#group.renameLogical(to, from); }
      throw error;
    }
  }

  async flush(volume: Volume): Promise<void> {
    await flush(this.#group.host, this.path(volume));
    const reason = this.shortage();
    if (reason !== undefined) throw new LidoError("unavailable", reason);
  }

  shortage(): string | undefined {
    if (this.#group.status()?.mode !== "out_of_data_space") return undefined;
    return `No space left on device: thin pool "${this.#group.thinPool}" of storage pool "${this.pool.name}" is full`;
  }

  async list(): Promise<Volume[]> {
    return (await this.#group.listing()).flatMap(({ name }) => volumeOf(name) ?? []);
  }

  async leftovers(): Promise<Leftover[]> {
    return (await this.#group.listing()).flatMap(({ name }) => {
      const parent = parentOfTemporary(name);
      if (parent === undefined) return [];
      const remove = () => this.#group.removeTemporary(name, parent);
      return [{ place: `${this.#group.name}/${name}`, of: volumeOf(parent)!.name, remove }];
    });
  }

  async resources(): Promise<Resources> {
    const status = this.#group.status();
    const inodes = { used: 0n, total: 0n };
    if (status && this.#group.thinPool !== undefined) {
      const total = this.#group.size(this.#group.thinPool) ?? 0n;
      return { space: { used: total * status.data.used / status.data.total, total }, inodes };
    }
    const group = await this.#group.tool.group(this.#group.name);
    if (!group) throw new LidoError("unavailable", `Volume group "${this.#group.name}" doesn't exist`);
    return { space: { used: group.sizeBytes - group.freeBytes, total: group.sizeBytes }, inodes };
  }

  async refuseDestroy(): Promise<void> {
    // An existing thin pool stays, with what others have in it.
    if (isExisting(this.pool)) return;
    const foreign = (await this.#group.listing()).find(({ name }) => !isOurs(name) && name !== this.#group.thinPool);
    if (foreign === undefined) return;
    throw new LidoError(
      "bad_request",
      `Volume group "${this.#group.name}" has leftover logical volumes: ${foreign.name}`,
    );
  }

  async close(): Promise<void> {
    await unmountBelow(this.#group.host, this.pool.root);
    await this.#onClose();
  }

  #sizeDefault(): bigint {
    return parseSizeBytes(this.pool.config["volume.size"] || sizeDefault)!;
  }

  #health(thinPool: string): Health {
    return {
      // deno-lint-ignore require-await -- async in the contract
      check: async () => healthOf(thinStatus(this.#group.name, thinPool)),
      fill: () => {
        const status = thinStatus(this.#group.name, thinPool);
        const filling = status ? [{ of: "data", ...status.data }, { of: "metadata", ...status.metadata }] : [];
        return Promise.resolve(filling);
      },
    };
  }
}
