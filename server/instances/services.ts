/** What the instances need of the rest of the daemon, no more: so that tests can hand in a part of it. */

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
  /** The same before work begins: waits until the pool's filesystem has answered. */
  ready(name: string): Promise<Driver>;
  /** Where a volume is when its pool can be used, and whether it can. */
  placeOf(name: string, volume: Volume): { readonly path: string; readonly isAvailable: boolean };
}

export interface InstanceVolumes {
  /** Makes a volume and its row, all or nothing; from `from` (a volume of the same pool) if given. */
  createFor(
    pool: string,
    volume: Volume,
    options: CreateForOptions,
  ): Promise<void>;
  /** One change at a time for each volume, by `<pool>/<type>/<name on disk>`. */
  readonly locks: Pick<Locks, "hold">;
  /** What is on disk and not known, to be looked at before an intent is opened. */
  readonly look: Pick<
    DiskLook,
    "refuseTaken" | "refuseTakenSnapshot" | "refuseUnknownSnapshots" | "unknownOf"
  >;
  /** Whether a volume is known: until its deletion is done. */
  find(pool: string, volume: Volume): boolean;
  /** Deletes what `createFor` has made; nothing else that may be there. */
  rollBackFor(pool: string, volume: Volume): Promise<void>;
  /** Takes a volume, its snapshots and its row away, however much of it there is. */
  deleteFor(pool: string, volume: Volume): Promise<void>;
  /** What a volume takes up, in bytes, its tree walked where nothing counts it. */
  usedBytes(pool: string, type: Volume["type"], name: string, snapshot?: string): Promise<bigint>;
  /** What a copy moves; undefined when that is not known before. @param snapshots Those that come along. */
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
  /** The image unpacked on a pool, made if need be. */
  volumeOn(pool: string, fingerprint: string, watch: WatchOptions): Promise<Volume>;
  /** How much the image is unpacked, in bytes; undefined when its file does not say. */
  unpackedBytes(fingerprint: string): Promise<bigint | undefined>;
}

/** Files in a container's tree, which is hostile: every path is resolved beneath `root`. */
export interface TreeFiles {
  /** @returns The text of a regular file, or undefined when there is none. */
  read(root: string, path: string): Promise<string | undefined>;
  /** Replaces or makes a regular file; keeps owner and mode of one that is there. */
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

/** What a container gets of the daemon beside its disks, as an object of the expanded settings. */
export interface InstanceGuests {
  /** Before a start. @returns What is to be mounted. */
  prepare(name: string, config: Config): Promise<MountSpec[]>;
  /** After an end, or a start that failed. */
  release(name: string): Promise<void>;
  /** For the containers that run when the daemon starts. */
  adopt(): Promise<void>;
  /** After a change of its settings. */
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
