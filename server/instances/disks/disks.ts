import { LidoError } from "../../../api/errors.ts";
import type { Devices } from "../../../api/types.ts";
import type { IdMap } from "../../../drivers/host/id_map.ts";
import type { MountPlace, MountSpec } from "../../../drivers/runtime/runtime.ts";
import type { Volume } from "../../../drivers/storage/driver.ts";
import { type Disk, disksOf } from "../../config/devices.ts";
import type { InstanceServices } from "../services.ts";
import type { InstanceRecord, InstanceTable } from "../table.ts";
import type { ShiftProgress } from "./shift_progress.ts";
import { prefixed, type Sharing } from "./sharing.ts";

/** Prepares disk devices to be mounted into a container, and releases them. */
export class Disks {
  readonly #services: InstanceServices;
  readonly #records: InstanceTable;
  readonly #sharing: Sharing;

  constructor(services: InstanceServices, records: InstanceTable, sharing: Sharing) {
    this.#services = services;
    this.#records = records;
    this.#sharing = sharing;
  }

  /** Checks that a device's source exists and is of a kind that can be mounted; changes nothing.
   * @param instance The instance that has the device. @throws {LidoError} bad_request, `Failed add validation for device "x": …`. */
  async check(instance: string, disk: Disk): Promise<void> {
    try {
      if (disk.volume) this.#sharing.get(disk.volume.pool, disk.volume.name);
      else await this.#checkHostPath(instance, disk, disk.hostPath!);
    } catch (error) {
      const failure = prefixed(`Failed add validation for device "${disk.device}": `, error);
      throw failure instanceof LidoError && failure.code === "not_found"
        ? new LidoError("bad_request", failure.message)
        : failure;
    }
  }

  /** Runs `work` under the locks of these disks' volumes: no other work changes their owners or settings, or deletes them. */
  hold<T>(disks: readonly Disk[], work: () => Promise<T>): Promise<T> {
    const names = disks.flatMap(({ volume }) => volume ? [`${volume.pool}/custom/default_${volume.name}`] : []);
    return this.#services.volumes.locks.hold(names, work);
  }

  /** Makes a disk's source available; the caller holds the volume's lock. @param map The container's id map; absent when privileged.
   * @returns undefined if the source is missing and optional. @throws {LidoError} `Failed to start device "x": …`. */
  async prepare(
    instance: string,
    disk: Disk,
    map: IdMap | undefined,
    progress?: ShiftProgress,
  ): Promise<MountSpec | undefined> {
    try {
      return disk.volume
        ? await this.#prepareVolume(instance, disk, disk.volume, map, progress)
        : await this.#prepareHostPath(instance, disk, disk.hostPath!, map);
    } catch (error) {
      throw prefixed(`Failed to start device "${disk.device}": `, error);
    }
  }

  /** Source and target of a disk's mount, even if the source is unavailable now. */
  place(disk: Disk): MountPlace {
    if (!disk.volume) return { source: disk.hostPath!, foreign: true, target: disk.target };
    const { pool, subPath } = disk.volume;
    const { path: source, isAvailable } = this.#services.pools.placeOf(pool, volumeOf(disk.volume));
    // The path of an unavailable pool may lead to anything, even to a filesystem that never answers.
    return { source, target: disk.target, ...(subPath ? { subPath } : {}), ...(isAvailable ? {} : { foreign: true }) };
  }

  /** Keeps a disk's volume mounted until disposed of. */
  async use(disk: Disk): Promise<AsyncDisposable> {
    if (!disk.volume) return { [Symbol.asyncDispose]: () => Promise.resolve() };
    return await this.#services.mounts.use(disk.volume.pool, volumeOf(disk.volume));
  }

  /** Releases the instance's hold on a disk's volume. */
  async release(instance: string, disk: Disk): Promise<void> {
    if (!disk.volume) return;
    await this.#services.mounts.release(disk.volume.pool, volumeOf(disk.volume), holderOf(instance, disk));
  }

  /** After a restart of the daemon: makes a running instance the holder of its disks' volumes. */
  adoptAll(instance: string): void {
    for (const disk of disksOf(this.#devices(this.#records.get(instance)))) {
      if (!disk.volume) continue;
      this.#services.mounts.adopt(disk.volume.pool, volumeOf(disk.volume), holderOf(instance, disk));
    }
  }

  /** Releases every disk that an instance has. */
  async releaseAll(instance: string): Promise<void> {
    const record = this.#records.find(instance);
    if (!record) return;
    for (const disk of disksOf(this.#devices(record))) await this.release(instance, disk);
  }

  /** The mounted devices; for an instance that is still being started, the configured ones. */
  #devices(record: InstanceRecord): Devices {
    return this.#records.mounted(record.name) ?? this.#records.expand(record).devices;
  }

  async #prepareVolume(
    instance: string,
    disk: Disk,
    volume: NonNullable<Disk["volume"]>,
    map: IdMap | undefined,
    progress: ShiftProgress | undefined,
  ): Promise<MountSpec> {
    const { shifted } = await this.#sharing.prepare(instance, volume.pool, volume.name, map, progress);
    const root = await this.#services.mounts.hold(volume.pool, volumeOf(volume), holderOf(instance, disk));
    if (volume.subPath && !(await this.#services.files.exists(root, volume.subPath))) {
      await this.release(instance, disk);
      throw new LidoError("bad_request", `Missing path "${volume.subPath}" in storage volume "${volume.name}"`);
    }
    const mount = this.#mount(disk, root, shifted);
    return volume.subPath ? { ...mount, subPath: volume.subPath } : mount;
  }

  async #prepareHostPath(
    instance: string,
    disk: Disk,
    path: string,
    map: IdMap | undefined,
  ): Promise<MountSpec | undefined> {
    const isThere = await this.#checkHostPath(instance, disk, path);
    return isThere ? { ...this.#mount(disk, path, disk.shift && map !== undefined), foreign: true } : undefined;
  }

  async #checkHostPath(instance: string, disk: Disk, path: string): Promise<boolean> {
    const found = await this.#services.runtime.lookAtSource(instance, path);
    if (found === undefined) {
      if (!disk.required) return false;
      throw new LidoError("bad_request", `Missing source path "${path}" for disk "${disk.device}"`);
    }
    // A FIFO or a socket would be a hidden channel between two containers, and a block device is not a tree.
    if (found === "other") {
      throw new LidoError(
        "bad_request",
        `Source path "${path}" for disk "${disk.device}" is neither a directory nor a regular file`,
      );
    }
    return true;
  }

  #mount(disk: Disk, source: string, shifted: boolean): MountSpec {
    return {
      device: disk.device,
      source,
      target: disk.target,
      shifted,
      options: disk.options,
      recursive: disk.recursive,
      ...(disk.propagation ? { propagation: disk.propagation } : {}),
    };
  }
}

const volumeOf = ({ name }: NonNullable<Disk["volume"]>): Volume => ({ type: "custom", name: `default_${name}` });

const holderOf = (instance: string, { device }: Disk): string => `${instance}/${device}`;
