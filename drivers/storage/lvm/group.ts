import { mkdir, rmdir } from "node:fs/promises";
import { dirname } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import { CommandError, type Host } from "../../host/host.ts";
import { pathOf } from "../directory_volumes.ts";
import { AlreadyThere, type Pool, type Volume } from "../driver.ts";
import { repairMode } from "../layout.ts";
import { filesystemOn, Filesystems, type FilesystemType, snapshotOptions } from "./filesystem.ts";
import { devicePath, extents, groupName, logicalName, temporaryName, thinPoolName, volumeOf } from "./layout.ts";
import { refuseFull, type ThinStatus, thinStatus } from "./thin_status.ts";
import type { LogicalVolume, LvmTool } from "./tool.ts";

export const mountOptionsDefault = "discard";

export interface GroupOptions {
  /** Logical volumes in the group. */
  readonly volumes: readonly LogicalVolume[];
  readonly extentBytes: bigint;
}

/** The volume group of a pool: its logical volumes, their mounts, and what is known of them; nothing else writes these maps. Only the pool
 * changes its volumes, so they are known from the opening of the pool on, and asking needs no process. */
export class LvmGroup {
  readonly host: Host;
  readonly tool: LvmTool;
  readonly filesystems: Filesystems;
  readonly name: string;
  /** Absent for classic volumes. */
  readonly thinPool: string | undefined;
  /** Size in bytes, by logical name. */
  readonly #sizes = new Map<string, bigint>();
  /** By logical name, as far as known. */
  readonly #types = new Map<string, FilesystemType>();
  /** Names that were found taken by volumes we did not make: never removed. */
  readonly #foreign = new Set<string>();
  /** Names that a failed command may or may not have made. */
  readonly #unsure = new Set<string>();
  readonly #extentBytes: bigint;
  #pool: Pool;

  constructor(host: Host, pool: Pool, tool: LvmTool, { volumes, extentBytes }: GroupOptions) {
    this.host = host;
    this.#pool = pool;
    this.tool = tool;
    this.filesystems = new Filesystems(host);
    this.name = groupName(pool);
    this.thinPool = thinPoolName(pool);
    this.#extentBytes = extentBytes;
    for (const { name, sizeBytes } of volumes) this.#sizes.set(name, sizeBytes);
  }

  get pool(): Pool {
    return this.#pool;
  }

  configure(config: Pool["config"]): void {
    this.#pool = { ...this.#pool, config };
  }

  has(name: string): boolean {
    return this.#sizes.has(name);
  }

  names(): string[] {
    return [...this.#sizes.keys()];
  }

  /** @returns Bytes; undefined for an unknown logical volume. */
  size(name: string): bigint | undefined {
    return this.#sizes.get(name);
  }

  setSize(name: string, bytes: bigint): void {
    this.#sizes.set(name, bytes);
  }

  /** For a volume that LVM removed by itself. */
  forget(name: string): void {
    this.#sizes.delete(name);
  }

  type(name: string): FilesystemType | undefined {
    return this.#types.get(name);
  }

  setType(name: string, type: FilesystemType): void {
    this.#types.set(name, type);
  }

  path(volume: Volume): string {
    return pathOf(this.pool, volume);
  }

  /** @throws {LidoError} bad_request for a name that LVM does not allow. */
  nameOf(volume: Volume): string {
    return logicalName(this.name, volume);
  }

  extents(sizeBytes: bigint): bigint {
    return extents(sizeBytes, this.#extentBytes);
  }

  device(name: string): string {
    return devicePath(this.name, name);
  }

  async mount(volume: Volume): Promise<void> {
    if (await this.host.mounts.at(this.path(volume))) return;
    const name = this.nameOf(volume);
    await this.tool.activate(this.name, name);
    try {
      const type = await filesystemOn(this.device(name));
      this.#types.set(name, type);
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
    if (this.#sizes.has(this.nameOf(volume))) await this.deactivate(volume);
  }

  /** Cleans up after an interrupted restore: the old content gets the parent's name back if that is free; anything else is removed. */
  async removeTemporary(name: string, parent: string): Promise<void> {
    if (name === temporaryName(parent, "old") && !this.#sizes.has(parent)) await this.renameLogical(name, parent);
    else await this.remove(name);
  }

  snapshotNames(parent: Volume): string[] {
    return [...this.#sizes.keys()].flatMap((name) => {
      const volume = volumeOf(name);
      return volume?.type === parent.type && volume.name === parent.name ? volume.snapshot ?? [] : [];
    });
  }

  /** Classic snapshots are active with their origin and only with it: nothing is deactivated while one of them is mounted. */
  async deactivate(volume: Volume): Promise<void> {
    const { snapshot: _, ...parent } = volume;
    const name = this.thinPool === undefined ? this.nameOf(parent) : this.nameOf(volume);
    if (this.thinPool === undefined) {
      for (const one of [parent, ...this.snapshotNames(parent).map((snapshot) => ({ ...parent, snapshot }))]) {
        if (await this.host.mounts.at(this.path(one))) return;
      }
    }
    await this.deactivateLogical(name);
  }

  async deactivateLogical(name: string): Promise<void> {
    // The kernel drops the mounts of a dead container a moment after its last process ends, and notifies nobody.
    for (let attempt = 0; attempt < releaseTries; attempt++) {
      if (await this.tool.deactivate(this.name, name)) return;
      await new Promise((resolve) => setTimeout(resolve, releasePauseMs));
    }
  }

  /** Runs `make`, which makes a logical volume, and records the result. */
  async made(name: string, sizeBytes: bigint, make: () => Promise<void>): Promise<void> {
    try {
      await make();
    } catch (error) {
      if (isNameTaken(error)) {
        if (!this.#sizes.has(name)) this.#foreign.add(name);
        throw new AlreadyThere(`logical volume "${this.name}/${name}"`);
      }
      this.#unsure.add(name);
      throw error;
    }
    this.#sizes.set(name, sizeBytes);
    this.#foreign.delete(name);
  }

  async remove(...names: string[]): Promise<void> {
    if (names.some((name) => this.#unsure.has(name))) {
      for (const { name, sizeBytes } of await this.listing()) {
        if (names.includes(name)) this.#sizes.set(name, sizeBytes);
      }
    }
    // In the order given: a classic snapshot is removed before its origin.
    const going = names.filter((name) => this.#sizes.has(name) && !this.#foreign.has(name));
    for (let attempt = 0;; attempt++) {
      try {
        await this.tool.remove(this.name, ...going);
        break;
      } catch (error) {
        if (!(error instanceof CommandError && /in use|is used by/i.test(error.stderr)) || attempt >= releaseTries) {
          throw error;
        }
        await new Promise((resolve) => setTimeout(resolve, releasePauseMs));
      }
    }
    for (const name of names) {
      this.#sizes.delete(name);
      this.#types.delete(name);
      this.#unsure.delete(name);
    }
  }

  async renameLogical(from: string, to: string): Promise<void> {
    try {
      await this.tool.rename(this.name, from, to);
    } catch (error) {
      throw isNameTaken(error) ? new AlreadyThere(`logical volume "${this.name}/${to}"`) : error;
    }
    const sizeBytes = this.#sizes.get(from)!;
    this.#sizes.delete(from);
    this.#sizes.set(to, sizeBytes);
    const type = this.#types.get(from);
    this.#types.delete(from);
    if (type) this.#types.set(to, type);
  }

  /** @throws {LidoError} unavailable when the thin pool has no room for another volume. */
  refuseFull(): void {
    const status = this.status();
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

  async listing(): Promise<LogicalVolume[]> {
    const volumes = await this.tool.volumes(this.name);
    if (!volumes) throw new LidoError("unavailable", `Volume group "${this.name}" doesn't exist`);
    return volumes;
  }

  status(): ThinStatus | undefined {
    return this.thinPool === undefined ? undefined : thinStatus(this.name, this.thinPool);
  }
}

const releaseTries = 20, releasePauseMs = 250;

function isNameTaken(error: unknown): boolean {
  return error instanceof CommandError && /already exists in volume group/i.test(error.stderr);
}
