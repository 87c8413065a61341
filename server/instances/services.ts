/** What the instances need from the rest of the daemon, and no more, so that tests can provide a part of it. */

import type { Config } from "../../api/types.ts";
import type { IdMap } from "../../drivers/host/id_map.ts";
import type { MountSpec, Runtime } from "../../drivers/runtime/runtime.ts";
import type { Driver, Volume, WatchOptions } from "../../drivers/storage/driver.ts";
import type { Events } from "../events/events.ts";
import type { Guest } from "../guests/guest_api.ts";
import type { Journal } from "../journal/journal.ts";
import type { Operations } from "../operations/operations.ts";
import type { Database } from "../state/database.ts";
import type { DiskLook } from "../volumes/disk_look.ts";
import type { Locks } from "../store/locks.ts";
import type { MountedVolumes } from "../pools/mounted.ts";
import type { CreateForOptions } from "../volumes/volumes.ts";
import type { HostRanges } from "../ids/idmaps.ts";

export interface InstancePools {
  /** @throws {LidoError} not_found, or unavailable when the pool cannot be opened. */
  driver(name: string): Driver;
  /** As `driver`, for use before work begins: waits until the pool's filesystem has answered. */
  ready(name: string): Promise<Driver>;
  /** Path of a volume while its pool can be used, and whether it can be used now. */
  placeOf(name: string, volume: Volume): { readonly path: string; readonly isAvailable: boolean };
}

export interface InstanceVolumes {
  /** Makes a volume and its row, all or nothing; as a copy of `from`, on this pool or on `fromPool`, if given. */
  createFor(
    pool: string,
    volume: Volume,
    options: CreateForOptions,
  ): Promise<void>;
  /** One change at a time for each volume, by `<pool>/<type>/<name on disk>`. */
  readonly locks: Pick<Locks, "hold">;
  /** Checks for unknown volumes and snapshots, made before an intent is opened. */
  readonly look: Pick<
    DiskLook,
    "refuseTaken" | "refuseTakenSnapshot" | "refuseUnknownSnapshots" | "unknownOf"
  >;
  /** Whether the database has a volume; its row is kept until its deletion is complete. */
  find(pool: string, volume: Volume): boolean;
  /** Deletes what `createFor` has made, and nothing else. */
  rollBackFor(pool: string, volume: Volume): Promise<void>;
  /** Deletes a volume, its snapshots and its row; some of them may be missing. */
  deleteFor(pool: string, volume: Volume): Promise<void>;
  /** Bytes that a volume uses; found by a walk through its tree where the driver does not count them. */
  usedBytes(pool: string, type: Volume["type"], name: string, snapshot?: string): Promise<bigint>;
  /** Bytes that a copy transfers; undefined when not known beforehand. @param snapshots Snapshots that are copied too. */
  copiedBytes(pool: string, source: Volume, snapshots: readonly string[]): Promise<bigint | undefined>;
}

export interface ImageInfo {
  readonly fingerprint: string;
  readonly type: string;
  readonly architecture: string;
  readonly properties: Config;
  readonly profiles: readonly string[];
}

export interface InstanceImages {
  /** @param name An alias or the beginning of a fingerprint. @throws {LidoError} not_found. */
  resolve(name: string): ImageInfo;
  /** The image's unpacked volume on a pool; unpacks the image if needed. */
  volumeOn(pool: string, fingerprint: string, watch: WatchOptions): Promise<Volume>;
  /** Size of the unpacked image in bytes; undefined when its file does not say. */
  unpackedBytes(fingerprint: string): Promise<bigint | undefined>;
}

/** Files in a container's tree, which is hostile: every path is resolved beneath `root`. */
export interface TreeFiles {
  /** @returns The text of a regular file; undefined when it is missing. */
  read(root: string, path: string): Promise<string | undefined>;
  /** Replaces or makes a regular file; keeps owner and mode of an existing one. */
  write(root: string, path: string, content: string, owner: { uid: number; gid: number }): Promise<void>;
  exists(root: string, path: string): Promise<boolean>;
  /** Whether a directory is at `path`; a symbolic link to one is none. */
  isDirectory(root: string, path: string): Promise<boolean>;
}

export interface HostIds {
  ranges(): Promise<HostRanges>;
  /** Changes the owners of a tree from one map to another, in place; undefined is "as in the image". May be repeated after a kill.
   * @returns How many entries were changed. @throws If an owner has no place in the other map. */
  shift(
    root: string,
    from: IdMap | undefined,
    to: IdMap | undefined,
    options?: { progress?: (entries: number) => void },
  ): Promise<number>;
}

/** What a container gets from the daemon beside its disks, by its expanded settings. */
export interface InstanceGuests {
  /** Called before a start. @returns The mounts to make. */
  prepare(name: string, config: Config): Promise<MountSpec[]>;
  /** Called after an end, or a failed start. */
  release(name: string): Promise<void>;
  /** Called at the daemon's start, for the containers that run. */
  adopt(): Promise<void>;
  /** Called after a change of an instance's settings. */
  changed(before: Guest, after: Guest): Promise<void>;
}

export interface Log {
  info(context: object, message: string): void;
  warn(context: object, message: string): void;
}

export interface InstanceServices {
  readonly database: Database;
  readonly journal: Journal;
  readonly events: Events;
  readonly operations: Operations;
  readonly runtime: Runtime;
  readonly pools: InstancePools;
  readonly volumes: InstanceVolumes;
  readonly mounts: Pick<MountedVolumes, "use" | "hold" | "release" | "adopt" | "alone">;
  readonly images: InstanceImages;
  readonly files: TreeFiles;
  readonly ids: HostIds;
  readonly guests: InstanceGuests;
  readonly log: Log;
  /** `$LIDO_DIR/logs`; each instance has a directory of its own there. */
  readonly logs: string;
}
