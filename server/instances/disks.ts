import { stat } from "node:fs/promises";
import { LidoError } from "../../api/errors.ts";
import type { IdMap, MountSpec } from "../../drivers/runtime/runtime.ts";
import type { Volume } from "../../drivers/storage/driver.ts";
import { type Disk, disksOf } from "./devices.ts";
import type { InstanceServices } from "./ports.ts";
import type { InstanceRecords } from "./records.ts";
import { prefixed, type Sharing } from "./sharing.ts";

/** Makes disk devices ready to be mounted into a container, and lets them go. */
export class Disks {
  readonly #services: InstanceServices;
  readonly #records: InstanceRecords;
  readonly #sharing: Sharing;

  constructor(services: InstanceServices, records: InstanceRecords, sharing: Sharing) {
    this.#services = services;
    this.#records = records;
    this.#sharing = sharing;
  }

  /** Checks that a device's source is there and of a kind that can be mounted; changes nothing.
   * @throws {LidoError} bad_request, `Failed add validation for device "x": …`. */
  async check(disk: Disk): Promise<void> {
    try {
      if (disk.volume) this.#sharing.get(disk.volume.pool, disk.volume.name);
      else await this.#checkHostPath(disk, disk.hostPath!);
    } catch (error) {
      const failure = prefixed(`Failed add validation for device "${disk.device}": `, error);
      throw failure instanceof LidoError && failure.code === "not_found"
        ? new LidoError("bad_request", failure.message)
        : failure;
    }
  }

  /** Runs `work` while nobody else changes the volumes of these disks: their owners, their settings, whether they are there. */
  hold<T>(disks: readonly Disk[], work: () => Promise<T>): Promise<T> {
    const names = disks.flatMap(({ volume }) => volume ? [`${volume.pool}/custom/default_${volume.name}`] : []);
    return this.#services.volumes.locks.hold(names, work);
  }

  /** The caller holds the disk's volume. @param map The container's map, absent when privileged. @returns undefined for a source that is missing and need not be there.
   * @throws {LidoError} `Failed to start device "x": …`. */
  async prepare(instance: string, disk: Disk, map: IdMap | undefined): Promise<MountSpec | undefined> {
    try {
      return disk.volume
        ? await this.#prepareVolume(instance, disk, disk.volume, map)
        : await this.#prepareHostPath(disk, disk.hostPath!, map);
    } catch (error) {
      throw prefixed(`Failed to start device "${disk.device}": `, error);
    }
  }

  /** Unmounts the volume of a disk from the host if no running container uses it any more. */
  async release(disk: Disk): Promise<void> {
    if (!disk.volume) return;
    const { pool, name } = disk.volume;
    const isUsed = this.#sharing.users(pool, name).some((user) => this.#services.runtime.get(user.name) !== undefined);
    if (isUsed) return;
    await this.#services.pools.driver(pool).unmount({ type: "custom", name: `default_${name}` }).catch((error) =>
      this.#services.log.warn({ pool, volume: name, error: String(error) }, "could not unmount a volume")
    );
  }

  /** Releases every disk that an instance has. */
  async releaseAll(instance: string): Promise<void> {
    const record = this.#records.find(instance);
    if (!record) return;
    for (const disk of disksOf(this.#records.expand(record).devices)) await this.release(disk);
  }

  async #prepareVolume(
    instance: string,
    disk: Disk,
    volume: NonNullable<Disk["volume"]>,
    map: IdMap | undefined,
  ): Promise<MountSpec> {
    const driver = this.#services.pools.driver(volume.pool);
    const target: Volume = { type: "custom", name: `default_${volume.name}` };
    const { shifted } = await this.#sharing.prepare(instance, volume.pool, volume.name, map);
    await driver.mount(target);
    const root = driver.path(target);
    if (volume.subPath && !(await this.#services.files.exists(root, volume.subPath))) {
      throw new LidoError("bad_request", `Missing path "${volume.subPath}" in storage volume "${volume.name}"`);
    }
    const mount = this.#mount(disk, root, shifted);
    return volume.subPath ? { ...mount, subPath: volume.subPath } : mount;
  }

  async #prepareHostPath(disk: Disk, path: string, map: IdMap | undefined): Promise<MountSpec | undefined> {
    const isThere = await this.#checkHostPath(disk, path);
    return isThere ? this.#mount(disk, path, disk.shift && map !== undefined) : undefined;
  }

  async #checkHostPath(disk: Disk, path: string): Promise<boolean> {
    const found = await stat(path).catch((error: NodeJS.ErrnoException) => error);
    if (found instanceof Error) {
      if (!disk.required) return false;
      throw new LidoError("bad_request", `Missing source path "${path}" for disk "${disk.device}"`);
    }
    // A FIFO or a socket would let two containers talk behind everybody's back, and a block device is not a tree.
    if (!found.isDirectory() && !found.isFile()) {
      throw new LidoError(
        "bad_request",
        `Source path "${path}" for disk "${disk.device}" is neither a directory nor a regular file`,
      );
    }
    return true;
  }

  #mount(disk: Disk, source: string, shifted: boolean): MountSpec {
    return {
      source,
      target: disk.target,
      shifted,
      readonly: disk.readonly,
      recursive: disk.recursive,
      ...(disk.propagation ? { propagation: disk.propagation } : {}),
    };
  }
}
