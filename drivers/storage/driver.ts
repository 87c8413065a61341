/** The storage contract.
 *
 * A *pool* is a place on the host that holds volumes. A *driver kind* (dir, btrfs, zfs, lvm) knows how to make, open and destroy pools; an
 * open pool is a *driver*. A *volume* has a type (container, custom, image) and a name, and its content is a directory tree at
 * `path(volume)` while it is mounted. A *snapshot* is a volume too, named by `snapshot` beside its parent's name.
 *
 * The core is what every driver can do. Everything else is a *facet*: probed when the pool is opened, then fixed. `absent` has the reason why
 * a facet is missing, in words for the user. Policy (which volume, who is allowed, the fallback for a missing facet) is in `server/volumes` and
 * its neighbours. Only the registry uses a driver's name.
 *
 * Where each volume is a filesystem of its own (`mountsVolumes`), it is mounted only while it is used; the server counts the uses
 * (server/pools/mounted.ts). `create`, `clone` and `receive` leave the volume unmounted. Methods that work on a volume as a whole (`delete`,
 * `rename`, `restore`, `quota.set`) are called when only running containers use it, mounted or not: they mount and unmount for themselves, and
 * leave the volume as it was, or unmounted. `snapshot.create`, `clone` and `send` work on a source that is mounted or not. A snapshot is mounted
 * read-only, at a path of its own, even while its parent is mounted.
 *
 * Crash safety rests on one rule: `delete`, `destroy` and `snapshot.delete` are idempotent and remove whatever a killed `create`, `clone`,
 * `copy` or `receive` left, however little or much. The journal calls them to roll back. So everything a driver makes is at a place derived
 * from the pool and the volume alone.
 *
 * Nothing is overwritten: `create`, `clone`, `receive`, `rename` and their like fail with `AlreadyThere`, before anything has changed, when
 * something exists at the target. So a caller that checked `isTaken` before it opened its intent, and got an error other than `AlreadyThere`,
 * may delete what it finds at the target. */

import type { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";
import type { Host } from "../host/host.ts";

/** The volume's filesystem cannot be shrunk to a size: a copy of that size must be made file by file. */
export class CannotShrink extends LidoError {
  constructor(volume: string) {
    super("bad_request", `Cannot shrink ${volume}: Cannot be shrunk`);
  }
}

/** A volume that was to be deleted is in use elsewhere (`how`): nothing has been changed. */
export class InUse extends LidoError {
  constructor(volume: string, how: string) {
    super("bad_request", `Cannot delete ${volume}: ${how}`);
  }
}

/** The target of a create or rename exists already, and the caller did not make it: nothing has changed. */
export class AlreadyThere extends LidoError {
  constructor(volume: string) {
    super("conflict", `Cannot make ${volume}: something of that name is on disk already`);
  }
}

export type VolumeType = "container" | "custom" | "image";

/** A volume as it is named on disk: containers by instance name, images by fingerprint, custom volumes as `<project>_<name>`. */
export interface Volume {
  readonly type: VolumeType;
  readonly name: string;
  /** Set when this is a snapshot of the volume. */
  readonly snapshot?: string;
  /** The volume's effective configuration (pool defaults merged in), for drivers with keys of their own. */
  readonly config?: Readonly<Record<string, string>>;
}

/** A pool as the database knows it; `root` and `diskFile` are derived from its name and $LIDO_DIR. */
export interface Pool {
  readonly name: string;
  readonly config: Readonly<Record<string, string>>;
  /** `$LIDO_DIR/storage-pools/<name>`: where the pool is mounted, or the tree itself. */
  readonly root: string;
  /** `$LIDO_DIR/disks/<name>.img`: backing file of a loop pool. */
  readonly diskFile: string;
}

export interface CreateOptions {
  /** Limit on the volume's size; absent means unlimited. Needs the quota facet. */
  readonly sizeBytes?: bigint;
  /** Owner and mode of the volume's root. Default 0, 0, 0o711; 0o100 for containers and images. */
  readonly uid?: number;
  readonly gid?: number;
  readonly mode?: number;
}

/** Progress of a copy: bytes so far. @param total Bytes in the end, where they are known. */
export type Progress = (bytes: bigint, total?: bigint) => void;

/** For methods whose time depends on the amount of data. */
export interface WatchOptions {
  /** Aborts the work, which then throws the signal's reason. */
  readonly signal?: AbortSignal;
  readonly progress?: Progress;
}

export interface CopyOptions extends CreateOptions, WatchOptions {}

export interface Resources {
  readonly space: { readonly used: bigint; readonly total: bigint };
  readonly inodes: { readonly used: bigint; readonly total: bigint };
}

export interface Snapshots {
  /** "instant" when the cost does not depend on the data. */
  readonly cost: "instant" | "reflink" | "copy";
  /** @throws {AlreadyThere} */
  create(volume: Volume, options?: WatchOptions): Promise<void>;
  /** Takes several snapshots at one moment, even while the volumes are written to; absent where the driver takes them one after the other. */
  createGroup?(volumes: readonly Volume[]): Promise<void>;
  delete(volume: Volume): Promise<void>;
  /** @throws {AlreadyThere} */
  rename(volume: Volume, name: string): Promise<void>;
  /** The later snapshots of the volume that `restore` would delete, the oldest first, where the driver cannot restore without; absent where
   * it always can. The server deletes their rows too.
   * @throws {LidoError} bad_request when there are some and the volume's settings do not allow their deletion. */
  lostBy?(volume: Volume): Promise<string[]>;
  /** Gives the parent the snapshot's content, in place, at one moment. When it throws, the content has not changed, but some of `lost` may be
   * deleted. The previous content, or an incomplete new one, stays beside the parent until `afterRestore`.
   * @param lost What `lostBy` returned. */
  restore(volume: Volume, lost?: readonly string[], options?: WatchOptions): Promise<void>;
  /** Deletes what `restore` left beside the parent; nothing there is no error. */
  afterRestore(parent: Volume): Promise<void>;
  list(parent: Volume): Promise<string[]>;
}

/** A writable copy that shares its blocks with the source, within the pool. */
export interface Clone {
  /** "difference" when only the differences between the source and the common origin of both are copied. */
  readonly cost: "instant" | "reflink" | "difference";
  /** Whether the source's snapshots can be cloned as snapshots of the copy. */
  readonly carriesSnapshots: boolean;
  clone(source: Volume, target: Volume, options?: CopyOptions): Promise<void>;
}

export interface Quota {
  /** Whether root's own writes may exceed a limit: after filling a volume for a user, the caller calls `set` once more, which checks the use. */
  readonly exemptsRoot?: boolean;
  /** @param sizeBytes undefined lifts the limit. @param options.evenBelowUse Skips the check, to go back to the limit from before a failed change.
   * @throws {LidoError} bad_request if the volume already uses more. */
  set(volume: Volume, sizeBytes: bigint | undefined, options?: { evenBelowUse?: boolean }): Promise<void>;
  get(volume: Volume): Promise<bigint | undefined>;
  usedBytes(volume: Volume): Promise<bigint>;
  /** Number of files and directories; absent where the filesystem does not count them for each volume. */
  usedInodes?(volume: Volume): Promise<number | undefined>;
}

/** The driver's own stream format (`btrfs send`, `zfs send`), for copies between pools of the same `format`. */
export interface Send {
  readonly format: string;
  /** Whether a volume and its snapshots form a chain: they are received in order, each sent as the difference from the one before. */
  readonly isChained: boolean;
  /** Bytes written since the snapshot before this snapshot, or since the volume's latest: about what is sent for it in a chain. Absent where
   * only a dry run of the send could tell. */
  writtenBytes?(volume: Volume): Promise<bigint>;
  /** @param options.parent Snapshot that the receiver has already. */
  send(volume: Volume, options?: SendOptions & { parent?: Volume }): SentStream;
  /** @param options.parent Snapshot that the stream is based on, as it is named on the target. */
  receive(volume: Volume, stream: Readable, options?: CopyOptions & { parent?: Volume }): Promise<void>;
  /** Absent when an interrupted transfer must start again. */
  readonly resume?: {
    /** @returns The position at which an interrupted `receive` can continue; undefined when nothing was kept. */
    token(volume: Volume): Promise<string | undefined>;
    /** The rest of the stream; it is received as the whole would be. */
    send(token: string, options?: SendOptions): SentStream;
  };
  /** Present when streams can be part of backups, in the places where LXD expects them. */
  readonly backup?: StreamBackup;
}

export interface StreamBackup {
  /** Checks foreign streams: all streams of one backup pass through it, one after the other.
   * @returns A function that yields a stream unchanged. It fails when the stream is damaged or would write outside its volume. */
  inspect(): (stream: AsyncIterable<Uint8Array>) => AsyncGenerator<Uint8Array>;
  /** @param head The first bytes of a stream. @returns The UUID of the subvolume sent; undefined when there are too few bytes. */
  uuidOf(head: Uint8Array): string | undefined;
  /** Prepares streams of what is nested in states of a volume (subvolumes), which a stream of the state does not include; until it is disposed of.
   * @param states Snapshots of one volume, the oldest first. @throws {LidoError} bad_request with the reason why it cannot be sent. */
  nested(states: readonly Volume[]): Promise<NestedStreams>;
  /** Receives a nested subvolume into a volume or snapshot that was received. @param nested.parent State that may have the same one, which the
   * stream may be based on. @throws {LidoError} bad_request when there is no place for it. */
  receiveNested(
    volume: Volume,
    nested: { readonly path: string; readonly parent?: Volume | undefined },
    stream: Readable,
    options?: SendOptions,
  ): Promise<void>;
  /** Called when a volume or snapshot and all that is nested in it were received. @param readonly Paths of the read-only ones. */
  completeNested(volume: Volume, readonly: readonly string[]): Promise<void>;
}

export interface NestedStreams extends AsyncDisposable {
  /** For each state, the outer ones first; a path has no leading slash. */
  readonly states: readonly (readonly { readonly path: string; readonly readonly: boolean }[])[];
  /** @param state Its index. @returns The stream, based on the one at the same path in the state before. */
  send(state: number, path: string, options?: SendOptions): SentStream;
}

export interface SendOptions {
  readonly signal?: AbortSignal;
}

export interface SentStream {
  readonly stream: Readable;
  readonly done: Promise<void>;
}

/** Grows the pool itself. */
export interface Resize {
  /** @throws {LidoError} bad_request when the pool cannot have this size; nothing is changed. */
  check(sizeBytes: bigint): Promise<void>;
  /** Idempotent: another call completes what a killed one began. */
  grow(sizeBytes: bigint): Promise<void>;
}

export interface Health {
  /** One line for people ("ONLINE", "no device errors") and whether it is good. */
  check(): Promise<{ ok: boolean; text: string }>;
  /** Use and size of what can run full besides `resources` ("data", "metadata" of a thin pool). Costs no process. */
  fill?(): Promise<{ of: string; used: bigint; total: bigint }[]>;
}

export interface Facets {
  snapshot: Snapshots;
  clone: Clone;
  quota: Quota;
  send: Send;
  resize: Resize;
  health: Health;
}

/** Something on a pool that is only there while an operation runs. */
export interface Leftover {
  /** Path relative to the pool, for messages. */
  readonly place: string;
  /** Name on disk of the volume that the operation works or worked on. */
  readonly of: string;
  /** Deletes it; the caller has made sure that no operation works on the volume. */
  remove(): Promise<void>;
}

export interface Driver {
  readonly pool: Pool;
  readonly facets: Readonly<Partial<Facets>>;
  /** Facet → why it is missing. */
  readonly absent: Readonly<Partial<Record<keyof Facets, string>>>;
  /** Whether idmapped mounts work on this pool's filesystem. */
  readonly idmappedMounts: boolean;
  /** Whether each volume is a filesystem of its own, with nothing at its path until it is mounted. */
  readonly mountsVolumes: boolean;
  /** Where the volume's content is once mounted. */
  path(volume: Volume): string;
  /** @throws {AlreadyThere} */
  create(volume: Volume, options?: CreateOptions): Promise<void>;
  /** Deletes a volume and its snapshots; nothing there is no error. @throws {InUse} Before anything has changed. */
  delete(volume: Volume): Promise<void>;
  exists(volume: Volume): Promise<boolean>;
  /** Whether anything exists at the places of the volume and its snapshots, even if it is no volume: a new volume of that name would get it, and
   * `delete` would delete it. */
  isTaken(volume: Volume): Promise<boolean>;
  /** Why what `list` found at a volume's place cannot be a volume (a file, a symbolic link); undefined when it can. Absent where only volumes
   * can be there. */
  unfit?(volume: Volume): Promise<string | undefined>;
  /** Renames within its type, snapshots included. @throws {AlreadyThere} */
  rename(volume: Volume, name: string): Promise<void>;
  /** Makes `path(volume)` usable. The caller counts the uses; a second mount is no error. A snapshot is mounted read-only where the driver
   * can. */
  mount(volume: Volume): Promise<void>;
  /** Not mounted is no error. @throws {SystemCallError} EBUSY. */
  unmount(volume: Volume): Promise<void>;
  /** Writes the dirty data of a mounted volume to the disk. Present only where `write` can succeed and the data still be lost (thin pool full).
   * @throws {LidoError} unavailable when there is no room for it. */
  flush?(volume: Volume): Promise<void>;
  /** Why a write may just have failed (no space), whatever the filesystem reports; called after the failure. */
  shortage?(): string | undefined;
  /** Every volume and snapshot on disk, for check and recover; one listing, not one call for each volume. */
  list(): Promise<Volume[]>;
  /** Leftovers in the pool, those of running operations included. The others are deleted when the pool is opened, or with their volume. */
  leftovers(): Promise<Leftover[]>;
  resources(): Promise<Resources>;
  /** Why an open pool cannot be used just now: its device was removed, or does not answer. Asked before each use, so it costs next to
   * nothing. Absent where the driver cannot tell. */
  absence?(): string | undefined;
  /** Applies pool settings that changed since the pool was opened; absent where they make no difference. */
  configure?(config: Pool["config"]): void;
  /** Applies changed settings of a volume; absent where the driver has no volume keys.
   * @param volume With its new settings. @param sizeBytes Its limit, changed or not. */
  configureVolume?(volume: Volume, sizeBytes: bigint | undefined): Promise<void>;
  /** @throws {LidoError} bad_request when `destroy` would delete data that is not this pool's; absent where it cannot. */
  refuseDestroy?(): Promise<void>;
  /** Releases the pool (unmount, detach, export); its data stays. */
  close(): Promise<void>;
}

/** A configuration key: the check of its value, and its help. The server composes the error text. */
export interface ConfigKey {
  /** @returns A reason when the value is not allowed. */
  readonly check: (value: string) => string | undefined;
  /** The value that applies where the key is not set. */
  readonly default?: string;
  /** Whether the key can only be set when the pool or volume is created. */
  readonly fixed?: boolean;
  /** When a change takes effect: at the next start of an instance, mount of a volume, opening of a pool. At once where absent. */
  readonly effect?: "next start" | "next mount" | "next open";
  /** In one line, for help and docs. */
  readonly help: string;
  /** The allowed values, where they can be listed. */
  readonly values?: readonly string[];
}

export interface OpenOptions {
  readonly readOnly?: boolean;
}

export interface DriverKind {
  readonly name: string;
  /** Debian packages that bring its tools. */
  readonly packages: readonly string[];
  readonly poolKeys: Readonly<Record<string, ConfigKey>>;
  /** Whether a volume is a block device, which always has a size: with no limit given it gets the driver's default, and lifting the limit
   * changes nothing. */
  readonly isBlock?: true;
  /** Keys that only this driver's volumes have, besides the common ones. */
  readonly volumeKeys: Readonly<Record<string, ConfigKey>>;
  /** Whether this host can run the driver: a version, or what is missing and how to install it. */
  probe(host: Host): Promise<{ version: string } | { missing: string }>;
  /** Checks `source` and sizes and fills in defaults (loop size, source); changes nothing on the host.
   * @returns The config to store. @throws {LidoError} bad_request with the reason. */
  plan(host: Host, pool: Pool): Promise<Record<string, string>>;
  /** Makes the pool on disk and opens it. On failure the journal calls `destroy`. */
  create(host: Host, pool: Pool): Promise<Driver>;
  /** Opens an existing pool: attaches, mounts, probes facets.
   * @param options.readOnly Changes nothing in it: it may be another daemon's. @throws {LidoError} unavailable when its source is
   * not there. */
  open(host: Host, pool: Pool, options?: OpenOptions): Promise<Driver>;
  /** Whether the host uses the pool's source already, so that `close` would disturb its user. Absent where a mount at the pool's root tells. */
  isInUse?(host: Host, pool: Pool): Promise<boolean>;
  /** Deletes the pool from the disk, in any state, closed or half made. Never deletes what `create` did not make (a foreign source directory).
   * @param known The pool's volumes that the database knows: in a shared source only these are deleted. Absent: none. */
  destroy(host: Host, pool: Pool, known?: readonly Volume[]): Promise<void>;
}
