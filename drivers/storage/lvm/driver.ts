import { mkdir, rmdir } from "node:fs/promises";
import { dirname } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import { parseSizeBytes } from "../../../api/size.ts";
import { CommandError, type Host } from "../../host/host.ts";
import { pathOf, setOwner } from "../directory_volumes.ts";
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
import { filesystemDefault, filesystemOn, Filesystems, type FilesystemType, snapshotOptions } from "./filesystem.ts";
import {
  devicePath,
  extents,
  groupName,
  isExisting,
  isOurs,
  logicalName,
  mapperPath,
  parentOfTemporary,
  temporaryName,
  thinPoolName,
  volumeOf,
} from "./layout.ts";
import { repairMode } from "../layout.ts";
import { flush } from "../tree.ts";
import { refuseMountedElsewhere, unmountBelow } from "../volume_mounts.ts";
import { LvmClone } from "./clone.ts";
import { LvmSnapshots } from "./snapshots.ts";
import { healthOf, refuseFull, type ThinStatus, thinStatus } from "./thin_status.ts";
import type { LogicalVolume, LvmTool } from "./tool.ts";
import { LvmQuota } from "./volume_size.ts";

/** LXD's, for volumes of block devices. */
export const sizeDefault = "10GiB", mountOptionsDefault = "discard";

/** An open LVM pool: a logical volume with a filesystem for each volume, active only while it is mounted. The group is the pool's alone, so what is
 * in it is known from when the pool was opened: asking needs no process. */
export class LvmDriver implements Driver {
  readonly facets: Readonly<Partial<Facets>>;
  readonly absent: Readonly<Partial<Record<keyof Facets, string>>>;
  readonly idmappedMounts: boolean;
  readonly mountsVolumes = true;
  readonly group: string;
  /** Absent for classic volumes. */
  readonly thinPool: string | undefined;
  readonly host: Host;
  readonly tool: LvmTool;
  readonly filesystems: Filesystems;
  readonly quota: LvmQuota;
  /** Size in bytes, by logical name. */
  readonly sizes = new Map<string, bigint>();
  /** By logical name, as far as it was seen. */
  readonly types = new Map<string, FilesystemType>();
  /** Names that were found taken by what we did not make: never removed. */
  readonly #foreign = new Set<string>();
  /** Names of what a command that failed may or may not have made. */
  readonly #unsure = new Set<string>();
  readonly #onClose: () => Promise<void>;
  readonly #extentBytes: bigint;
  #pool: Pool;

  /** @param options.volumes What is in the group. @param options.onClose Lets go of the devices. */
  constructor(
    host: Host,
    pool: Pool,
    tool: LvmTool,
    options: {
      volumes: readonly LogicalVolume[];
      extentBytes: bigint;
      idmappedMounts: boolean;
      resize?: Resize;
      onClose: () => Promise<void>;
    },
  ) {
    this.host = host;
    this.#pool = pool;
    this.#extentBytes = options.extentBytes;
    this.tool = tool;
    this.filesystems = new Filesystems(host);
    this.quota = new LvmQuota(this);
    this.group = groupName(pool);
    this.thinPool = thinPoolName(pool);
    this.idmappedMounts = options.idmappedMounts;
    this.#onClose = options.onClose;
    for (const { name, sizeBytes } of options.volumes) this.sizes.set(name, sizeBytes);
    const { thinPool } = this;
    this.facets = {
      snapshot: new LvmSnapshots(this),
      quota: this.quota,
      ...(thinPool === undefined ? {} : { clone: new LvmClone(this), health: this.#health(thinPool) }),
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
    return this.#pool;
  }

  configure(config: Pool["config"]): void {
    this.#pool = { ...this.#pool, config };
  }

  /** The kernel gives a thin pool up that it cannot write to; it is opened anew when its devices are there again. */
  absence(): string | undefined {
    if (this.#status()?.mode !== "Fail") return undefined;
    return `Thin pool "${this.thinPool}" of volume group "${this.group}" has failed: one of its devices does not answer`;
  }

  path(volume: Volume): string {
    return pathOf(this.pool, volume);
  }

  /** @throws {LidoError} bad_request for a name that LVM cannot have. */
  name(volume: Volume): string {
    return logicalName(this.group, volume);
  }

  extents(sizeBytes: bigint): bigint {
    return extents(sizeBytes, this.#extentBytes);
  }

  device(name: string): string {
    return devicePath(this.group, name);
  }

  async create(volume: Volume, options: CreateOptions = {}): Promise<void> {
    const name = this.name(volume);
    const sizeBytes = this.extents(options.sizeBytes ?? this.#sizeDefault());
    this.refuseFull();
    const config = volume.config ?? {};
    const type = (config["block.filesystem"] || this.pool.config["volume.block.filesystem"] ||
      filesystemDefault) as FilesystemType;
    const stripeBytes = config["lvm.stripes.size"] && parseSizeBytes(config["lvm.stripes.size"]);
    await this.made(name, sizeBytes, () =>
      this.tool.create(this.group, name, {
        sizeBytes,
        ...(this.thinPool === undefined ? {} : { thinPool: this.thinPool }),
        ...(config["lvm.stripes"] ? { stripes: config["lvm.stripes"] } : {}),
        ...(stripeBytes ? { stripeBytes } : {}),
      }));
    await this.filesystems.format(this.device(name), type, {
      isZeroed: this.thinPool !== undefined,
      words: (config["block.create_options"] ?? this.pool.config["volume.block.create_options"] ?? "").split(" ")
        .filter(
          Boolean,
        ),
    });
    this.types.set(name, type);
    await this.mountAt(volume, name, type, []);
    await setOwner(this.path(volume), volume, options);
    await this.unmount(volume);
  }

  async delete(volume: Volume): Promise<void> {
    const { snapshot: _, ...parent } = volume;
    const name = this.name(parent);
    const snapshots = this.snapshotNames(parent).map((snapshot): Volume => ({ ...parent, snapshot }));
    const devices = new Set([parent, ...snapshots].map((one) => mapperPath(this.group, this.name(one))));
    await refuseMountedElsewhere(this.host, this.pool, parent, (source) => devices.has(source));
    for (const one of [...snapshots, parent]) await this.unmountOnly(one);
    const names = [
      ...snapshots.map((one) => this.name(one)),
      temporaryName(name, "new"),
      temporaryName(name, "old"),
      name,
    ];
    await this.remove(...names);
  }

  // deno-lint-ignore require-await -- async as the contract
  async exists(volume: Volume): Promise<boolean> {
    return this.sizes.has(this.name(volume));
  }

  // deno-lint-ignore require-await -- async as the contract
  async isTaken(volume: Volume): Promise<boolean> {
    return this.sizes.has(this.name({ type: volume.type, name: volume.name })) || this.snapshotNames(volume).length > 0;
  }

  async rename(volume: Volume, name: string): Promise<void> {
    const { snapshot: _, ...parent } = volume;
    const all: Volume[] = [...this.snapshotNames(parent).map((snapshot) => ({ ...parent, snapshot })), parent];
    const pairs = all.map((one) => ({ one, from: this.name(one), to: this.name({ ...one, name }) }))
      .filter(({ from }) => this.sizes.has(from));
    for (const { to } of pairs) if (this.sizes.has(to)) throw new AlreadyThere(`logical volume "${this.group}/${to}"`);
    const done: typeof pairs = [];
    try {
      for (const pair of pairs) {
        await this.unmount(pair.one);
        await this.renameLogical(pair.from, pair.to);
        done.unshift(pair);
      }
    } catch (error) {
      // One that was made behind our back: what was renamed before it is renamed back.
      if (error instanceof AlreadyThere) { for (const { from, to } of done) await this.renameLogical(to, from); }
      throw error;
    }
  }

  async mount(volume: Volume): Promise<void> {
    if (await this.host.mounts.at(this.path(volume))) return;
    const name = this.name(volume);
    await this.tool.activate(this.group, name);
    try {
      const type = await filesystemOn(this.device(name));
      this.types.set(name, type);
      const options = (volume.config?.["block.mount_options"] || this.pool.config["volume.block.mount_options"] ||
        mountOptionsDefault).split(",");
      await this.mountAt(volume, name, type, volume.snapshot === undefined ? options : snapshotOptions(type));
      if (volume.snapshot === undefined) await repairMode(this.path(volume), volume);
    } catch (error) {
      await this.deactivate(volume);
      throw error;
    }
  }

  async unmount(volume: Volume): Promise<void> {
    await this.unmountOnly(volume);
    if (this.sizes.has(this.name(volume))) await this.deactivate(volume);
  }

  async flush(volume: Volume): Promise<void> {
    await flush(this.host, this.path(volume));
    const reason = this.shortage();
    if (reason !== undefined) throw new LidoError("unavailable", reason);
  }

  shortage(): string | undefined {
    if (this.#status()?.mode !== "out_of_data_space") return undefined;
    return `No space left on device: thin pool "${this.thinPool}" of storage pool "${this.pool.name}" is full`;
  }

  async list(): Promise<Volume[]> {
    return (await this.#listing()).flatMap(({ name }) => volumeOf(name) ?? []);
  }

  async leftovers(): Promise<Leftover[]> {
    return (await this.#listing()).flatMap(({ name }) => {
      const parent = parentOfTemporary(name);
      if (parent === undefined) return [];
      const remove = () => this.removeTemporary(name, parent);
      return [{ place: `${this.group}/${name}`, of: volumeOf(parent)!.name, remove }];
    });
  }

  /** What a restore that was cut off left: a volume without its name gets it back, the rest goes. */
  async removeTemporary(name: string, parent: string): Promise<void> {
    if (name === temporaryName(parent, "old") && !this.sizes.has(parent)) await this.renameLogical(name, parent);
    else await this.remove(name);
  }

  async resources(): Promise<Resources> {
    const status = this.#status();
    const inodes = { used: 0n, total: 0n };
    if (status && this.thinPool !== undefined) {
      const total = this.sizes.get(this.thinPool) ?? 0n;
      return { space: { used: total * status.data.used / status.data.total, total }, inodes };
    }
    const group = await this.tool.group(this.group);
    if (!group) throw new LidoError("unavailable", `Volume group "${this.group}" doesn't exist`);
    return { space: { used: group.sizeBytes - group.freeBytes, total: group.sizeBytes }, inodes };
  }

  async refuseDestroy(): Promise<void> {
    // One that was there before stays, with what others have in it.
    if (isExisting(this.pool)) return;
    const foreign = (await this.#listing()).find(({ name }) => !isOurs(name) && name !== this.thinPool);
    if (foreign === undefined) return;
    throw new LidoError("bad_request", `Volume group "${this.group}" has leftover logical volumes: ${foreign.name}`);
  }

  async close(): Promise<void> {
    await unmountBelow(this.host, this.pool.root);
    await this.#onClose();
  }

  snapshotNames(parent: Volume): string[] {
    return [...this.sizes.keys()].flatMap((name) => {
      const volume = volumeOf(name);
      return volume?.type === parent.type && volume.name === parent.name ? volume.snapshot ?? [] : [];
    });
  }

  /** Classic snapshots are active with their origin, and only with it. */
  async deactivate(volume: Volume): Promise<void> {
    const { snapshot: _, ...parent } = volume;
    const name = this.thinPool === undefined ? this.name(parent) : this.name(volume);
    if (this.thinPool === undefined) {
      for (const one of [parent, ...this.snapshotNames(parent).map((snapshot) => ({ ...parent, snapshot }))]) {
        if (await this.host.mounts.at(this.path(one))) return;
      }
    }
    await this.deactivateLogical(name);
  }

  async deactivateLogical(name: string): Promise<void> {
    // The kernel lets a dead container's mounts go a moment after its last process, and tells nobody.
    for (let attempt = 0; attempt < releaseTries; attempt++) {
      if (await this.tool.deactivate(this.group, name)) return;
      await new Promise((resolve) => setTimeout(resolve, releasePauseMs));
    }
  }

  /** Runs what makes a logical volume, and knows it then. */
  async made(name: string, sizeBytes: bigint, make: () => Promise<void>): Promise<void> {
    try {
      await make();
    } catch (error) {
      if (isNameTaken(error)) {
        if (!this.sizes.has(name)) this.#foreign.add(name);
        throw new AlreadyThere(`logical volume "${this.group}/${name}"`);
      }
      this.#unsure.add(name);
      throw error;
    }
    this.sizes.set(name, sizeBytes);
    this.#foreign.delete(name);
  }

  async remove(...names: string[]): Promise<void> {
    if (names.some((name) => this.#unsure.has(name))) {
      for (const { name, sizeBytes } of await this.#listing()) {
        if (names.includes(name)) this.sizes.set(name, sizeBytes);
      }
    }
    // In the order given: a classic snapshot goes before its origin.
    const going = names.filter((name) => this.sizes.has(name) && !this.#foreign.has(name));
    for (let attempt = 0;; attempt++) {
      try {
        await this.tool.remove(this.group, ...going);
        break;
      } catch (error) {
        if (!(error instanceof CommandError && /in use|is used by/i.test(error.stderr)) || attempt >= releaseTries) {
          throw error;
        }
        await new Promise((resolve) => setTimeout(resolve, releasePauseMs));
      }
    }
    for (const name of names) {
      this.sizes.delete(name);
      this.types.delete(name);
      this.#unsure.delete(name);
    }
  }

  async renameLogical(from: string, to: string): Promise<void> {
    try {
      await this.tool.rename(this.group, from, to);
    } catch (error) {
      throw isNameTaken(error) ? new AlreadyThere(`logical volume "${this.group}/${to}"`) : error;
    }
    const sizeBytes = this.sizes.get(from)!;
    this.sizes.delete(from);
    this.sizes.set(to, sizeBytes);
    const type = this.types.get(from);
    this.types.delete(from);
    if (type) this.types.set(to, type);
  }

  /** @throws {LidoError} unavailable when the thin pool has no room for another volume. */
  refuseFull(): void {
    const status = this.#status();
    if (status) refuseFull(this.pool.name, this.thinPool!, status);
  }

  async mountAt(volume: Volume, name: string, type: FilesystemType, options: readonly string[]): Promise<void> {
    const path = this.path(volume);
    await mkdir(path, { recursive: true, mode: 0o100 });
    await this.host.mounts.mount(this.device(name), path, type, ["nodev", ...options]);
  }

  async unmountOnly(volume: Volume): Promise<void> {
    const path = this.path(volume);
    await this.host.mounts.unmount(path);
    const quiet = (error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT" && error.code !== "ENOTEMPTY") throw error;
    };
    await rmdir(path).catch(quiet);
    if (volume.snapshot !== undefined) await rmdir(dirname(path)).catch(quiet);
  }

  async #listing(): Promise<LogicalVolume[]> {
    const volumes = await this.tool.volumes(this.group);
    if (!volumes) throw new LidoError("unavailable", `Volume group "${this.group}" doesn't exist`);
    return volumes;
  }

  #sizeDefault(): bigint {
    return parseSizeBytes(this.pool.config["volume.size"] || sizeDefault)!;
  }

  #status(): ThinStatus | undefined {
    return this.thinPool === undefined ? undefined : thinStatus(this.group, this.thinPool);
  }

  #health(thinPool: string): Health {
    return {
      // deno-lint-ignore require-await -- async as the contract
      check: async () => healthOf(thinStatus(this.group, thinPool)),
      fill: () => {
        const status = thinStatus(this.group, thinPool);
        const filling = status ? [{ of: "data", ...status.data }, { of: "metadata", ...status.metadata }] : [];
        return Promise.resolve(filling);
      },
    };
  }
}

const releaseTries = 20, releasePauseMs = 250;

function isNameTaken(error: unknown): boolean {
  return error instanceof CommandError && /already exists in volume group/i.test(error.stderr);
}
