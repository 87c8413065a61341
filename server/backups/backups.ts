import { randomUUID } from "node:crypto";
import { readdirSync, rmSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { LidoError, messageOf, notFound } from "../../api/errors.ts";
import type { Config, StorageVolumeBackup, StorageVolumeBackupsPost } from "../../api/types.ts";
import { CommandError, type PipedCommand, type PipeOptions } from "../../drivers/host/host.ts";
import type { Driver, Volume, WatchOptions } from "../../drivers/storage/driver.ts";
import { driverKinds } from "../../drivers/storage/registry.ts";
import { emptyTree, flush } from "../../drivers/storage/tree.ts";
import { compress, compressionOf, compressors, decompress, decompressors, headBytes } from "../archives/compression.ts";
import { cleanPath } from "../archives/member.ts";
import { readTar, type TarEntry } from "../archives/tar_reader.ts";
import type { Operation } from "../operations/operations.ts";
import { watch } from "../operations/progress.ts";
import type { Row } from "../state/database.ts";
import { type BackupIndex, parseIndex, writeIndex } from "./backup_index.ts";
import { checkedBackup } from "./check.ts";
import { Sections } from "./sections.ts";
import { carriedOver, sizeOf } from "../config/storage.ts";
import { checkName } from "../store/names.ts";
import { optimizedBy, readOptimized, writeOptimized } from "./optimized_backup.ts";
import { checkLimit, transferSnapshot } from "../volumes/planner.ts";
import { onDisk, viewSnapshot } from "../store/rows.ts";
import { checkTime } from "../snapshots/snapshots.ts";
import { lockName, url, type Volumes, type VolumesOptions } from "../volumes/volumes.ts";

const indexMaxBytes = 1 << 20;
/** tar's exit code for a file that changed while it was read, which is normal with a running container. */
const changedWhileRead = 1;
/** Name of the file with the index (the archive's first member) while a backup is made. */
const indexName = /^[0-9a-f-]{36}\.yaml$/;

interface Backup {
  readonly view: StorageVolumeBackup;
  readonly compression: string;
}

/** Backups of custom volumes, in LXD's format. No archive is stored: `create` only keeps a name and settings in memory, and the archive is made while
 * it is downloaded, with the content of that moment. An upload is unpacked into the volume as it arrives. */
export class VolumeBackups {
  readonly #options: VolumesOptions & { readonly directory: string };
  readonly #volumes: Volumes;
  /** By the URL of the backup. */
  readonly #backups = new Map<string, Backup>();

  /** @param options.directory Where the index is written for tar to read. */
  constructor(options: VolumesOptions & { readonly directory: string }, volumes: Volumes) {
    this.#options = options;
    this.#volumes = volumes;
    // Left by exports of an earlier daemon that was killed.
    for (const name of readdirSync(options.directory)) {
      if (indexName.test(name)) rmSync(join(options.directory, name), { force: true });
    }
  }

  /** The backups of a volume that have not expired. */
  list(pool: string, volume: string): StorageVolumeBackup[] {
    this.#volumes.row(pool, "custom", volume);
    const prefix = `${url(pool, "custom", volume)}/backups/`;
    const now = Date.now();
    for (const [key, { view }] of this.#backups) {
      if (new Date(view.expires_at).getTime() <= now) this.#backups.delete(key);
    }
    return [...this.#backups].filter(([key]) => key.startsWith(prefix)).map(([, { view }]) => view);
  }

  /** @throws {LidoError} not_found. */
  get(pool: string, volume: string, name: string): StorageVolumeBackup {
    return this.#find(pool, volume, name).view;
  }

  create(pool: string, volume: string, post: StorageVolumeBackupsPost): Operation {
    const taken = new Set(this.list(pool, volume).map(({ name }) => name));
    const compression = post.compression_algorithm || "gzip";
    if (!compressors[compression]) {
      const names = Object.keys(compressors).join(", ");
      throw new LidoError("bad_request", `Invalid compression algorithm "${compression}": ${names} are allowed`);
    }
    // As LXD: where the driver has no format of its own, the backup is a plain one, and its view says so.
    const isOptimized = post.optimized_storage && optimizedBy(this.#options.pools.driver(pool)) !== undefined;
    let name = post.name;
    for (let number = 0; name === ""; number++) if (!taken.has(`backup${number}`)) name = `backup${number}`;
    checkName("Backup", name);
    if (taken.has(name)) throw new LidoError("conflict", `Backup "${name}" already exists`);
    const key = `${url(pool, "custom", volume)}/backups/${name}`;
    return this.#options.operations.start({
      description: "Creating custom volume backup",
      // LXD 5.0's client takes the text after "/1.0/backups/" for the name.
      resources: { storage_volumes: [url(pool, "custom", volume)], backups: [`/1.0/backups/${name}`] },
      run: () => {
        const day = new Date(Date.now() + 24 * 3_600_000).toISOString();
        const view: StorageVolumeBackup = {
          name,
          created_at: new Date().toISOString(),
          expires_at: (post.expires_at && checkTime(post.expires_at)) || day,
          volume_only: post.volume_only,
          optimized_storage: isOptimized,
        };
        this.#backups.set(key, { view, compression });
        return Promise.resolve();
      },
    });
  }

  delete(pool: string, volume: string, name: string): Operation {
    this.#find(pool, volume, name);
    return this.#options.operations.start({
      description: "Deleting custom volume backup",
      resources: { storage_volumes: [url(pool, "custom", volume)] },
      run: () => {
        this.#backups.delete(`${url(pool, "custom", volume)}/backups/${name}`);
        return Promise.resolve();
      },
    });
  }

  /** @returns The archive, as it is made: on a failure the stream is destroyed with the error, not ended. The operation has the progress. */
  async export(pool: string, volume: string, name: string): Promise<{ stream: Readable; operation: Operation }> {
    const { view, compression } = this.#find(pool, volume, name);
    const { host, mounts, pools } = this.#options;
    const row = this.#volumes.row(pool, "custom", volume);
    const driver = pools.driver(pool);
    const stored = this.#volumes.volume(row);
    const snapshots = view.volume_only ? [] : this.#volumes.snapshotRows(Number(row.id));
    const indexFile = join(this.#options.directory, `${randomUUID()}.yaml`);
    const output = new PassThrough();
    const started = Promise.withResolvers<void>();
    const abort = new AbortController();
    // An export that cannot begin rejects the request; nothing reads its output then.
    output.on("error", () => {});
    output.on("close", () => abort.abort(new LidoError("bad_request", "The download was given up")));
    const run = async (operation: Operation) => {
      await using undo = new AsyncDisposableStack();
      undo.defer(() => rm(indexFile, { force: true }));
      const isOptimized = view.optimized_storage;
      const index = writeIndex(indexOf(pool, pools.kindOf(pool).name, row, snapshots, isOptimized));
      const content = await this.#moment(driver, stored, undo);
      const names = snapshots.map(({ name }) => String(name));
      const { progress } = watch(operation, volume, async () => {
        let sum = 0n;
        for (const snapshot of [...names, undefined]) {
          sum += await this.#volumes.usedBytes(pool, "custom", volume, snapshot);
        }
        return sum;
      });
      const { signal } = abort;
      let tar: { stdout: Readable; done: Promise<void> };
      if (isOptimized) {
        const archive = writeOptimized(driver, stored, content, names, index, { signal, progress });
        tar = { stdout: Readable.from(archive, { objectMode: false }), done: Promise.resolve() };
      } else {
        await writeFile(indexFile, index, { mode: 0o600 });
        const use = async (of: Volume) => undo.use(await mounts.use(pool, of)).path;
        const places: [string, string][] = [[indexFile, "backup/index.yaml"]];
        for (const snapshot of names) {
          places.push([await use({ ...stored, snapshot }), `backup/volume-snapshots/${snapshot}`]);
        }
        places.push([await use(content), "backup/volume"]);
        const made = archive(host, places, { signal, progress, okCodes: [0, changedWhileRead] });
        const checked = checkedBackup(made.stdout as AsyncIterable<Uint8Array>, names);
        tar = { stdout: Readable.from(checked, { objectMode: false }), done: made.done };
      }
      const argv = compressors[compression]!;
      const last = argv.length === 0 ? tar : compress(host, argv, { stdin: tar.stdout, signal });
      started.resolve();
      // Do not end the output with its source: a tool that fails ends its own output, too.
      await pipeline(last.stdout, output, { end: false }).catch((error) => {
        throw signal.aborted ? signal.reason : error;
      });
      await Promise.all([tar.done, last.done]);
      operation.sealUnlessCancelled();
    };
    const operation = this.#options.operations.start({
      description: "Exporting custom volume backup",
      resources: { storage_volumes: [url(pool, "custom", volume)] },
      cancel: () => abort.abort(operation.signal.reason),
      run: (operation) => this.#volumes.locks.hold([lockName(pool, stored)], () => run(operation), abort.signal),
    });
    void operation.done().then(
      () => output.end(),
      (error) => {
        started.reject(error);
        output.destroy(error as Error);
      },
    );
    await started.promise;
    return { stream: output, operation };
  }

  /** Creates a volume from an uploaded backup.
   * @param name Of the new volume; empty means the backup's own. @param sizeBytes Size of the upload, if the client sent it; for the progress.
   * @returns The operation, once the upload has been read. */
  async import(pool: string, name: string, body: Readable, sizeBytes?: number): Promise<Operation> {
    this.#options.pools.id(pool);
    const upload = await unpacked(this.#options.host, body, sizeBytes);
    const entries = readTar(upload.stream as AsyncIterable<Uint8Array>);
    try {
      const first = await entries.next();
      if (first.done || cleanPath(first.value.name) !== "backup/index.yaml") {
        throw new LidoError("bad_request", "Invalid backup: it does not begin with backup/index.yaml");
      }
      const index = parseIndex(new TextDecoder().decode(await first.value.read(indexMaxBytes)));
      const operation = this.#restore(pool, name || index.name, index, entries, upload);
      await operation.finished;
      return operation;
    } catch (error) {
      throw await upload.reason(error);
    } finally {
      upload.close();
    }
  }

  #restore(
    pool: string,
    name: string,
    index: BackupIndex,
    entries: AsyncGenerator<TarEntry>,
    upload: Upload,
  ): Operation {
    const { host, mounts, pools, operations, events } = this.#options;
    const asked = Object.fromEntries(Object.entries(index.volume.config).filter(([key]) => !isPlace(key)));
    const given = carriedOver(asked, driverKinds.get(index.driver), pools.kindOf(pool), pools.driver(pool));
    const { description } = index.volume;
    const config = this.#volumes.checkNew(pool, {
      name,
      type: "custom",
      content_type: "filesystem",
      description,
      config: given,
      source: { type: "", name: "", pool: "", project: "", volume_only: false, refresh: false },
    });
    const { snapshot: facet } = pools.driver(pool).facets;
    if (index.snapshots.length > 0 && !facet) {
      throw new LidoError("bad_request", `Cannot restore snapshots: ${pools.driver(pool).absent.snapshot}`);
    }
    const kind = pools.kindOf(pool).name;
    if (index.optimized && (index.driver !== kind || !optimizedBy(pools.driver(pool)))) {
      throw new LidoError(
        "bad_request",
        `Optimized backup storage driver "${index.driver}" differs from the target storage pool driver "${kind}"`,
      );
    }
    const total = upload.sizeBytes === undefined ? undefined : BigInt(upload.sizeBytes);
    /** Progress by the bytes of the archive that were read, where its size is known; else by the bytes that were unpacked. */
    const shown = (operation: Operation): Required<WatchOptions> => {
      const { signal, progress } = watch(operation, name);
      return {
        signal,
        progress: (bytes) => total === undefined ? progress(bytes) : progress(upload.consumed(), total),
      };
    };
    return operations.start({
      description: "Restoring custom volume backup",
      resources: { storage_volumes: [url(pool, "custom", name)] },
      cancel: () => {},
      run: async (operation) => {
        const target = { ...onDisk("custom", name), config };
        await this.#volumes.make(pool, target, { description, config }, async (driver, volume) => {
          const sizeBytes = sizeOf(config);
          if (index.optimized) {
            const names = index.snapshots.map((one) => one.name);
            await readOptimized(driver, volume, names, entries, {
              ...(sizeBytes === undefined ? {} : { sizeBytes }),
              ...shown(operation),
            }).catch(async (error) => {
              throw await upload.reason(error);
            });
            await checkLimit({ driver, volume }, sizeBytes);
            operation.sealUnlessCancelled();
            return (id) => this.#volumes.insertSnapshots(id, index.snapshots.map(rowOf));
          }
          await driver.create(volume, sizeBytes === undefined ? {} : { sizeBytes });
          await using use = await mounts.use(pool, volume);
          const { signal, progress } = shown(operation);
          const sections = new Sections(entries, index.snapshots.map((one) => one.name));
          let before = 0n, bytes = 0n;
          const told = (of: bigint) => progress(bytes = before + of);
          try {
            for await (const section of sections.all()) {
              signal.throwIfAborted();
              await emptyTree(host, use.path);
              before = bytes;
              await section.extract(host, use.path, { signal, progress: told });
              await driver.flush?.(volume);
              if (section.snapshot !== undefined) await facet!.create({ ...volume, snapshot: section.snapshot });
            }
            await (driver.flush?.(volume) ?? flush(host, use.path));
          } catch (error) {
            throw await upload.reason(error);
          }
          await checkLimit({ driver, volume }, sizeBytes);
          operation.sealUnlessCancelled();
          return (id) => this.#volumes.insertSnapshots(id, index.snapshots.map(rowOf));
        }, { signal: operation.signal });
        events.lifecycle("storage-volume-created", url(pool, "custom", name), { type: "custom" });
      },
    });
  }

  /** @returns A temporary snapshot to read the content from, where the driver makes one instantly; else the volume itself. */
  async #moment(driver: Driver, volume: Volume, undo: AsyncDisposableStack): Promise<Volume> {
    const { snapshot } = driver.facets;
    if (snapshot?.cost !== "instant") return volume;
    const moment = { ...volume, snapshot: transferSnapshot };
    await snapshot.delete(moment); // left by a killed transfer
    undo.defer(() => snapshot.delete(moment));
    await snapshot.create(moment);
    return moment;
  }

  #find(pool: string, volume: string, name: string): Backup {
    this.list(pool, volume);
    const found = this.#backups.get(`${url(pool, "custom", volume)}/backups/${name}`);
    if (!found) throw notFound("Storage volume backup", name, `of volume "${volume}" in pool "${pool}"`);
    return found;
  }
}

/** Whether a key describes the volume's old place, not its content: the planned id map. */
const isPlace = (key: string) => key.startsWith("volatile.idmap.next");

function indexOf(
  pool: string,
  driver: string,
  row: Row,
  snapshots: readonly Row[],
  optimized: boolean,
): BackupIndex {
  return {
    name: String(row.name),
    pool,
    driver,
    optimized,
    volume: { config: JSON.parse(String(row.config)), description: String(row.description) },
    snapshots: snapshots.map((one) => {
      const { name, config, description, created_at, expires_at } = viewSnapshot(one);
      return { name, config, description, createdAt: created_at, expiresAt: expires_at };
    }),
  };
}

function rowOf(one: BackupIndex["snapshots"][number]): Row {
  return {
    name: one.name,
    description: one.description,
    created_at: one.createdAt,
    expires_at: one.expiresAt,
    config: JSON.stringify(one.config as Config),
  };
}

/** @param places Host path → name in the archive. */
function archive(
  host: VolumesOptions["host"],
  places: readonly (readonly [string, string])[],
  options: PipeOptions,
): PipedCommand {
  const argv = [
    "tar",
    "--create",
    "--format=posix",
    "--numeric-owner",
    "--xattrs",
    "--xattrs-include=*",
    // The daemon's own attributes describe this volume, not its content.
    "--xattrs-exclude=trusted.lido.*",
    "--acls",
    "--sparse",
    "--warning=no-file-changed",
    "--file=-",
    "--directory=/",
    "--",
    ...places.map(([, name]) => name),
  ];
  const reads = Object.fromEntries(places.map(([path, name]) => [`/${name}`, path]));
  // Attributes in "trusted." are visible with CAP_SYS_ADMIN only. @see xattr(7)
  return host.confined({ reads, capabilities: ["CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"] }).pipe(argv, options);
}

interface Upload {
  readonly stream: Readable;
  /** @returns The error to report: the decompressor's own message says more than the truncation that follows from its failure. */
  reason(error: unknown): Promise<unknown>;
  close(): void;
  /** Size of the archive as uploaded; undefined if the client did not send it. */
  readonly sizeBytes: number | undefined;
  /** Bytes of the upload that were read so far. */
  consumed(): bigint;
}

/** @throws {LidoError} bad_request when it is no tar archive, or its compression is not supported. */
async function unpacked(host: VolumesOptions["host"], body: Readable, sizeBytes?: number): Promise<Upload> {
  const source = body[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  const head: Uint8Array[] = [];
  let bytes = 0;
  while (bytes < headBytes) {
    const { done, value } = await source.next();
    if (done) break;
    head.push(value);
    bytes += value.length;
  }
  const compression = compressionOf(Buffer.concat(head));
  if (compression === undefined || compression === "squashfs") {
    throw new LidoError("bad_request", "Invalid backup: it is no tar archive (plain, gzip, xz, zstd, bzip2)");
  }
  const whole = Readable.from(
    (async function* () {
      yield* head;
      for await (const chunk of { [Symbol.asyncIterator]: () => source }) {
        bytes += chunk.length;
        yield chunk;
      }
    })(),
    { objectMode: false },
  );
  const argv = decompressors[compression];
  const tool: PipedCommand | undefined = argv && decompress(host, argv, { stdin: whole });
  return {
    stream: tool?.stdout ?? whole,
    reason: async (error) => {
      if (error instanceof LidoError && !error.message.startsWith("Invalid backup: the archive")) return error;
      // Close its pipes: a tool that still has something to write would wait for ever.
      whole.destroy();
      tool?.stdout.destroy();
      const cause = await tool?.done.then(() => undefined, (failure) => failure);
      const text = cause instanceof CommandError ? cause.stderr.trim().split("\n").at(-1) : undefined;
      return new LidoError("bad_request", `Invalid backup: ${text || messageOf(error)}`);
    },
    close: () => {
      (tool?.stdout ?? whole).destroy();
      whole.destroy();
    },
    sizeBytes,
    consumed: () => BigInt(bytes),
  };
}
