/** The storage contract.
 *
 * A *pool* is a place on the host that holds volumes. A *driver kind* (dir, btrfs, zfs, lvm) knows how to make, open and destroy pools; an
 * open pool is a *driver*. A *volume* has a type (container, custom, image) and a name, and its content is a directory tree at
 * `path(volume)` while it is mounted. A *snapshot* is a volume too, named by `snapshot` beside its parent's name.
 *
 * The core is what every driver can do. All else is a *facet*: probed when the pool is opened and then fixed; a facet that is missing
 * has its reason in `absent`, in words for the user. Policy (which volume, who may, what when a facet is missing) is not here but in
 * `server/volumes` and its neighbours. Nobody outside the registry asks a driver for its name.
 *
 * Where each volume is a filesystem of its own (`mountsVolumes`), it is mounted only while it is used, and who uses it is the server's to know
 * (server/pools/mounted.ts). `create`, `clone` and `receive` leave it unmounted. What works on a volume as a whole (`delete`, `rename`,
 * `restore`, `quota.set`) is called when nobody but running containers uses it, in whatever state it is: it unmounts and mounts for itself, and
 * leaves it as it was, or unmounted. `snapshot.create`, `clone` and `send` work on a source that is mounted or not. A snapshot is mounted
 * read-only, beside its parent that may be mounted too.
 *
 * Crash safety rests on one rule: `delete`, `destroy` and `snapshot.delete` are idempotent and take away whatever a killed `create`,
 * `clone`, `copy` or `receive` left, however little or much of it there is. The journal calls them to undo. So everything a driver makes is at a place
 * derived from the pool and the volume alone.
 *
 * Nothing is made in the place of another: `create`, `clone`, `receive`, `rename` and their like fail with `AlreadyThere`, before anything has changed,
 * when something is there. So whoever has looked (`isTaken`) before it wrote down that it will make something, and got another failure, may delete
 * what it finds there. */

import type { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";
import type { Host } from "../host/host.ts";

/** A size that the volume's filesystem cannot be made to have: a copy of that size must be made file by file. */
export class CannotShrink extends LidoError {
  constructor(volume: string) {
    super("bad_request", `Cannot shrink ${volume}: Cannot be shrunk`);
  }
}

/** Somebody else uses a volume that was to go: nothing has been changed. */
export class InUse extends LidoError {
  constructor(volume: string, how: string) {
    super("bad_request", `Cannot delete ${volume}: ${how}`);
  }
}

/** What was to be made or renamed to is there already, and whoever asked did not make it: nothing has changed. */
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

/** Progress of anything that copies: bytes so far. @param total What they will be, where whoever copies knows. */
export type Progress = (bytes: bigint, total?: bigint) => void;

/** For what takes as long as the data is large. */
export interface WatchOptions {
  /** Ends the work, which then throws its reason. */
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
  /** Several at one moment, whoever writes meanwhile; absent where the driver takes them one after the other. */
  createGroup?(volumes: readonly Volume[]): Promise<void>;
  delete(volume: Volume): Promise<void>;
  /** @throws {AlreadyThere} */
  rename(volume: Volume, name: string): Promise<void>;
  /** The later snapshots of the volume that `restore` would take away, the oldest first, where the driver cannot go back without; absent where it
   * always can. The server takes their records away with them.
   * @throws {LidoError} bad_request when there are some and the volume's settings do not allow that. */
  lostBy?(volume: Volume): Promise<string[]>;
  /** Makes the parent's content that of the snapshot, in place, at one moment: when it throws, nothing has changed, but that some of `lost` may be
   * gone. What is left beside the parent, the content it had or a part of the new one, is there until `afterRestore`.
   * @param lost What `lostBy` told. */
  restore(volume: Volume, lost?: readonly string[], options?: WatchOptions): Promise<void>;
  /** Takes that away; nothing there is no error. */
  afterRestore(parent: Volume): Promise<void>;
  list(parent: Volume): Promise<string[]>;
}

/** A writable copy that shares its blocks with the source, within the pool. */
export interface Clone {
  /** "difference" when only that is copied in which the source differs from what both come from. */
  readonly cost: "instant" | "reflink" | "difference";
  /** Whether snapshots can be cloned to be snapshots of the copy. */
  readonly carriesSnapshots: boolean;
  clone(source: Volume, target: Volume, options?: CopyOptions): Promise<void>;
}

export interface Quota {
  /** Whether what root itself writes may pass a limit: who fills a volume for its user then calls `set` once more, which looks. */
  readonly exemptsRoot?: boolean;
  /** @param sizeBytes undefined lifts the limit. @param options.evenBelowUse Without the refusal: back to what was before a change that failed.
   * @throws {LidoError} bad_request if the volume already uses more. */
  set(volume: Volume, sizeBytes: bigint | undefined, options?: { evenBelowUse?: boolean }): Promise<void>;
  get(volume: Volume): Promise<bigint | undefined>;
  usedBytes(volume: Volume): Promise<bigint>;
  /** How many files and directories it has; absent where the filesystem does not count them for each volume. */
  usedInodes?(volume: Volume): Promise<number | undefined>;
}

/** The driver's own stream format (`btrfs send`, `zfs send`); between pools of one `format`. */
export interface Send {
  readonly format: string;
  /** Whether a volume and its snapshots make one line: they are received in their order, and each is sent as the difference from the one before. */
  readonly isChained: boolean;
  /** What was written since the snapshot before this one, or before the volume: about as much as is sent of it in a chain. In bytes; absent where
   * only a dry run of the send could tell. */
  writtenBytes?(volume: Volume): Promise<bigint>;
  /** @param options.parent What the receiver has already. */
  send(volume: Volume, options?: SendOptions & { parent?: Volume }): SentStream;
  /** @param options.parent What the stream builds on, as the target has it. */
  receive(volume: Volume, stream: Readable, options?: CopyOptions & { parent?: Volume }): Promise<void>;
  /** Absent when an interrupted transfer must begin anew. */
  readonly resume?: {
    /** @returns From where an interrupted `receive` can go on; undefined when nothing was kept. */
    token(volume: Volume): Promise<string | undefined>;
    /** The rest of the stream; to be received as the whole was. */
    send(token: string, options?: SendOptions): SentStream;
  };
  /** Present when streams can go into backups, where LXD knows how to find them. */
  readonly backup?: StreamBackup;
}

export interface StreamBackup {
  /** For streams that come from elsewhere: what those of one backup go through, one after the other.
   * @returns A function that gives a stream back as it came. It fails when the stream is damaged or would lead out of its volume. */
  inspect(): (stream: AsyncIterable<Uint8Array>) => AsyncGenerator<Uint8Array>;
  /** @param head The first bytes of a stream. @returns The UUID of what was sent; undefined when there are too few. */
  uuidOf(head: Uint8Array): string | undefined;
  /** What is within states of a volume that a stream of them does not have, ready to be sent; until it is disposed of.
   * @param states Snapshots of one volume, the oldest first. @throws {LidoError} bad_request, why it cannot be sent. */
  nested(states: readonly Volume[]): Promise<NestedStreams>;
  /** Puts what a stream holds within a volume or snapshot that was received. @param nested.parent State that may have the same, which the stream may be
   * based on. @throws {LidoError} bad_request when there is no place for it. */
  receiveNested(
    volume: Volume,
    nested: { readonly path: string; readonly parent?: Volume | undefined },
    stream: Readable,
    options?: SendOptions,
  ): Promise<void>;
  /** Called when all of a volume or snapshot was received that has some within it. @param readonly Paths of those that are read-only. */
  completeNested(volume: Volume, readonly: readonly string[]): Promise<void>;
}

export interface NestedStreams extends AsyncDisposable {
  /** For each state, the outer ones first; a path has no slash before it. */
  readonly states: readonly (readonly { readonly path: string; readonly readonly: boolean }[])[];
  /** @param state Its number. @returns The stream, based on what has the same path in the state before. */
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
  /** Idempotent: what a killed one began is finished by another. */
  grow(sizeBytes: bigint): Promise<void>;
}

export interface Health {
  /** One line for people ("ONLINE", "no device errors") and whether it is good. */
  check(): Promise<{ ok: boolean; text: string }>;
  /** For pools that run full beside what `resources` tells: how far, of what ("data", "metadata"). Costs no process. */
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

/** Something that is only there while an operation runs. */
export interface Leftover {
  /** Where it is, relative to the pool, for people. */
  readonly place: string;
  /** Name on disk of the volume that the operation is or was on. */
  readonly of: string;
  /** Takes it away; the caller knows that nothing is at work on the volume. */
  remove(): Promise<void>;
}

export interface Driver {
  readonly pool: Pool;
  readonly facets: Readonly<Partial<Facets>>;
  /** Facet → why it is not there. */
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
  /** Whether anything is in the places of the volume and its snapshots, the volume or not: a volume of that name would get it, and `delete` would delete
   * it. */
  isTaken(volume: Volume): Promise<boolean>;
  /** Why what `list` found at a volume's place cannot be one, such as a file or a symbolic link; undefined when it can. Absent where nothing else can
   * be there. */
  unfit?(volume: Volume): Promise<string | undefined>;
  /** Renames within its type, snapshots included. @throws {AlreadyThere} */
  rename(volume: Volume, name: string): Promise<void>;
  /** Makes `path(volume)` usable; counts are the caller's business, a second mount is no error. A snapshot is mounted read-only where the driver
   * can. */
  mount(volume: Volume): Promise<void>;
  /** What is not mounted is no error. @throws {SystemCallError} EBUSY. */
  unmount(volume: Volume): Promise<void>;
  /** Writes out what was written to a mounted volume. Only where success is not known before: a thin pool may have no room for what the filesystem took.
   * @throws {LidoError} unavailable when it has none. */
  flush?(volume: Volume): Promise<void>;
  /** Why what was being written may just have failed, whatever the filesystem says of it; asked then. */
  shortage?(): string | undefined;
  /** Every volume and snapshot on disk, for check and recover; one listing, not one call per volume. */
  list(): Promise<Volume[]>;
  /** What operations that never ended left in the pool, those at work included. It goes when the pool is opened, or with its volume. */
  leftovers(): Promise<Leftover[]>;
  resources(): Promise<Resources>;
  /** Why the pool cannot be used just now, although it is open: it was pulled away, or does not answer. Asked before each use, so it costs next to
   * nothing. Absent where nothing can tell. */
  absence?(): string | undefined;
  /** Takes the pool's settings up that have changed since it was opened; absent where they make no difference. */
  configure?(config: Pool["config"]): void;
  /** Takes up what has changed of the settings of a volume that the driver has keys for; absent where there are none.
   * @param volume With its new settings. @param sizeBytes Its limit, changed or not. */
  configureVolume?(volume: Volume, sizeBytes: bigint | undefined): Promise<void>;
  /** @throws {LidoError} bad_request when `destroy` would take away what is not of this pool; absent where it cannot. */
  refuseDestroy?(): Promise<void>;
  /** Releases the pool (unmount, detach, export); its data stays. */
  close(): Promise<void>;
}

/** A configuration key: how its value is checked, and what is told of it; the text of the refusal is the server's. */
export interface ConfigKey {
  /** @returns A reason when the value is not allowed. */
  readonly check: (value: string) => string | undefined;
  /** What holds where the key is not set. */
  readonly default?: string;
  /** Whether the key can only be set when the pool or volume is created. */
  readonly fixed?: boolean;
  /** When a change takes effect: of a running instance, a mounted volume, an open pool. At once where absent. */
  readonly effect?: "next start" | "next mount" | "next open";
  /** In one line, for help and docs. */
  readonly help: string;
  /** The words that `check` takes, where they can be listed. */
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
  /** Whether a volume is a block device, with a size in any case: then no limit asked for means the driver's default, and lifting it changes
   * nothing. */
  readonly isBlock?: true;
  /** Keys of its own a volume may have, beside the common ones. */
  readonly volumeKeys: Readonly<Record<string, ConfigKey>>;
  /** Whether this host can run it: a version, or what is missing and how to get it. */
  probe(host: Host): Promise<{ version: string } | { missing: string }>;
  /** Checks `source` and sizes, fills in defaults (loop size, source), and changes nothing.
   * @returns The config to store. @throws {LidoError} bad_request with the reason. */
  plan(host: Host, pool: Pool): Promise<Record<string, string>>;
  /** Makes the pool on disk and opens it. On failure `destroy` is called by the journal. */
  create(host: Host, pool: Pool): Promise<Driver>;
  /** Opens a pool that was made before: attaches, mounts, probes facets.
   * @param options.readOnly Only to be looked at: it may be another's, so nothing in it is changed. @throws {LidoError} unavailable when its source is
   * not there. */
  open(host: Host, pool: Pool, options?: OpenOptions): Promise<Driver>;
  /** Whether the host uses the pool's source already, so that `close` would take it from somebody. Absent where a mount at the pool's root tells. */
  isInUse?(host: Host, pool: Pool): Promise<boolean>;
  /** Takes the pool off the disk, in any state, closed or half made. Never touches what `create` did not make (a foreign source directory).
   * @param known The volumes of the pool that the database knows: where a source is shared with others, no more than these go. None when absent. */
  destroy(host: Host, pool: Pool, known?: readonly Volume[]): Promise<void>;
}
