import { randomUUID } from "node:crypto";
import { createReadStream, type ReadStream } from "node:fs";
import { access, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { LidoError, notFound } from "../../api/errors.ts";
import type { Config, Image, ImageAliasesEntry } from "../../api/types.ts";
import type { Host } from "../../drivers/host/host.ts";
import type { Volume, WatchOptions } from "../../drivers/storage/driver.ts";
import type { Events } from "../events/events.ts";
import type { Journal, OpenIntent } from "../journal/journal.ts";
import type { Operation, Operations } from "../operations/operations.ts";
import type { Database, Row } from "../state/database.ts";
import { Locks } from "../store/locks.ts";
import type { Volumes } from "../volumes/volumes.ts";
import { detectCompression } from "../archives/compression.ts";
import { checkArchive, type ImageMetadata } from "./archive.ts";
import { unpackedBytes, unpackImage } from "./unpack.ts";
import { receiveImage, type Uploaded } from "./upload.ts";

export interface ImagesOptions {
  readonly database: Database;
  readonly journal: Journal;
  readonly events: Events;
  readonly operations: Operations;
  readonly host: Host;
  readonly volumes: Volumes;
  /** `$LIDO_DIR/images`. */
  readonly directory: string;
}

export interface ImportHeaders {
  readonly contentType: string;
  readonly filename: string;
  readonly isPublic: boolean;
  readonly properties: Config;
  /** The fingerprint that the client expects; checked when given. */
  readonly fingerprint: string;
}

interface DeleteIntent {
  readonly fingerprint: string;
}

interface ImportIntent extends DeleteIntent {
  /** Whether there was a file of that name already, of an image that is not known: then the rollback keeps it. */
  readonly wasThere: boolean;
}

const uploadPrefix = ".upload-";
const never = "1970-01-01T00:00:00Z";

/** Images: their files in `$LIDO_DIR/images`, their rows and aliases, and one unpacked copy on each pool that uses them. */
export class Images {
  readonly #options: ImagesOptions;
  readonly #locks = new Locks();
  readonly #importing: OpenIntent<ImportIntent>;
  readonly #deleting: OpenIntent<DeleteIntent>;

  constructor(options: ImagesOptions) {
    this.#options = options;
    this.#importing = options.journal.kind<ImportIntent>("image.import", async ({ fingerprint, wasThere }) => {
      if (!wasThere) await this.#removeFiles(fingerprint);
    });
    this.#deleting = options.journal.kind<DeleteIntent>("image.delete", async ({ fingerprint }) => {
      await this.#removeFiles(fingerprint);
      options.database.run("DELETE FROM images WHERE fingerprint = ?", fingerprint);
    });
  }

  /** Deletes the incomplete uploads of a killed daemon. */
  async start(): Promise<void> {
    const { directory } = this.#options;
    for (const name of await readdir(directory)) {
      if (name.startsWith(uploadPrefix)) await rm(join(directory, name), { force: true });
    }
  }

  list(): Image[] {
    const aliases = this.#aliases();
    return this.#options.database.all("SELECT * FROM images ORDER BY id").map((row) => view(row, aliases));
  }

  /** @param prefix The beginning of a fingerprint. @throws {LidoError} not_found, or bad_request when several images match. */
  get(prefix: string): Image {
    return view(this.#row(prefix), this.#aliases());
  }

  etag(prefix: string): unknown {
    const { public: isPublic, auto_update, properties, expires_at } = this.#row(prefix);
    return [isPublic, auto_update, properties, expires_at];
  }

  /** @param name An alias, or the beginning of a fingerprint. @throws {LidoError} not_found. */
  resolve(name: string): Image {
    const alias = this.#options.database.get(
      "SELECT fingerprint FROM image_aliases JOIN images ON images.id = image_id WHERE image_aliases.name = ?",
      name,
    );
    return this.get(alias ? String(alias.fingerprint) : name);
  }

  /** Receives an upload; the operation checks it and adds it as an image. */
  async import(body: Readable, headers: ImportHeaders): Promise<Operation> {
    const { directory, operations } = this.#options;
    const main = join(directory, `${uploadPrefix}${randomUUID()}`), files = { main, rootfs: `${main}.rootfs` };
    const discard = () => Promise.all(Object.values(files).map((file) => rm(file, { force: true })));
    try {
      const uploaded = await receiveImage(body, headers.contentType, files, headers.filename);
      if (headers.fingerprint && headers.fingerprint !== uploaded.fingerprint) {
        throw new LidoError(
          "bad_request",
          `Image fingerprint doesn't match. Got ${uploaded.fingerprint} expected ${headers.fingerprint}`,
        );
      }
      return operations.start({
        description: "Downloading image",
        cancel: () => {},
        run: async (operation) => {
          try {
            await this.#accept(uploaded, files, headers, operation);
          } finally {
            await discard();
          }
        },
      });
    } catch (error) {
      await discard();
      throw error;
    }
  }

  /** @param isPatch Whether properties that are not given stay. */
  update(
    prefix: string,
    put: { public?: boolean; auto_update?: boolean; properties?: Config; expires_at?: string | null | undefined },
    isPatch: boolean,
  ): void {
    const row = this.#row(prefix);
    const before: Config = JSON.parse(String(row.properties));
    this.#options.database.run(
      "UPDATE images SET public = ?, auto_update = ?, properties = ?, expires_at = ? WHERE id = ?",
      Number(put.public ?? Boolean(row.public)),
      Number(put.auto_update ?? Boolean(row.auto_update)),
      JSON.stringify(isPatch ? { ...before, ...put.properties } : put.properties ?? {}),
      put.expires_at ?? row.expires_at!,
      row.id!,
    );
    this.#options.events.lifecycle("image-updated", `/1.0/images/${row.fingerprint}`);
  }

  /** Deletes an image and its unpacked copies on the pools; instances made from it are not affected. */
  delete(prefix: string): Operation {
    const fingerprint = String(this.#row(prefix).fingerprint);
    const { database, operations, volumes, events } = this.#options;
    return operations.start({
      description: "Deleting image",
      resources: { images: [`/1.0/images/${fingerprint}`] },
      run: () =>
        this.#locks.hold([fingerprint], async () => {
          this.#row(fingerprint);
          const pools = database.all(
            `SELECT storage_pools.name FROM storage_volumes JOIN storage_pools ON storage_pools.id = pool_id
             WHERE type = 'image' AND storage_volumes.name = ?`,
            fingerprint,
          );
          for (const { name } of pools) await volumes.deleteFor(String(name), { type: "image", name: fingerprint });
          await using open = this.#deleting({ fingerprint });
          await this.#removeFiles(fingerprint);
          open.commit(() => database.run("DELETE FROM images WHERE fingerprint = ?", fingerprint));
          events.lifecycle("image-deleted", `/1.0/images/${fingerprint}`);
        }),
    });
  }

  /** The image unpacked on a pool; unpacks it if there is no copy yet. Concurrent calls wait for the same copy. */
  async volumeOn(pool: string, fingerprint: string, watch: WatchOptions = {}): Promise<Volume> {
    const volume: Volume = { type: "image", name: fingerprint };
    const { database, host, volumes } = this.#options;
    await this.#locks.hold([fingerprint], async () => {
      this.#row(fingerprint);
      database.run("UPDATE images SET last_used_at = ? WHERE fingerprint = ?", new Date().toISOString(), fingerprint);
      if (volumes.find(pool, volume)) return;
      const [main, rootfs] = this.#files(fingerprint);
      const isSplit = await access(rootfs).then(() => true, () => false);
      const files = isSplit ? { main, rootfs } : { main };
      await volumes.createFilled(pool, volume, (path) => unpackImage(host, files, path, watch), watch.signal);
    }, watch.signal);
    return volume;
  }

  /** The image's unpacked size in bytes; undefined when it is not known in advance. */
  async unpackedBytes(fingerprint: string): Promise<bigint | undefined> {
    const [main, rootfs] = this.#files(fingerprint);
    const isSplit = await access(rootfs).then(() => true, () => false);
    return await unpackedBytes(this.#options.host, isSplit ? rootfs : main);
  }

  /** @returns The image's files to send: one, or metadata and rootfs. */
  async export(
    prefix: string,
  ): Promise<{ image: Image; files: { name: string; path: string; sizeBytes: number; open: () => ReadStream }[] }> {
    const image = this.get(prefix);
    const files = [];
    for (const [index, path] of this.#files(image.fingerprint).entries()) {
      const info = await stat(path).catch(() => undefined);
      if (info) {
        files.push({
          name: index === 0 ? "metadata" : "rootfs",
          path,
          sizeBytes: info.size,
          open: () => createReadStream(path),
        });
      }
    }
    if (files.length === 0) throw new LidoError("not_found", `The file of image "${image.fingerprint}" is missing`);
    return { image, files };
  }

  aliases(): ImageAliasesEntry[] {
    return this.#options.database.all(
      `SELECT image_aliases.name, image_aliases.description, fingerprint, type FROM image_aliases
       JOIN images ON images.id = image_id ORDER BY image_aliases.name`,
    ).map(viewAlias);
  }

  /** @throws {LidoError} not_found. */
  alias(name: string): ImageAliasesEntry {
    const found = this.aliases().find((alias) => alias.name === name);
    if (!found) throw notFound("Image alias", name);
    return found;
  }

  createAlias(post: { name: string; description: string; target: string }): void {
    checkAlias(post.name);
    if (this.aliases().some(({ name }) => name === post.name)) {
      throw new LidoError("conflict", `Alias "${post.name}" already exists`);
    }
    const { id } = this.#row(post.target);
    this.#options.database.run(
      "INSERT INTO image_aliases (name, description, image_id) VALUES (?, ?, ?)",
      post.name,
      post.description,
      id!,
    );
    this.#options.events.lifecycle("image-alias-created", `/1.0/images/aliases/${post.name}`);
  }

  updateAlias(name: string, put: { description?: string; target?: string }): void {
    const before = this.alias(name);
    const { id } = this.#row(put.target || before.target);
    const description = put.description ?? before.description;
    this.#options.database.run(
      "UPDATE image_aliases SET description = ?, image_id = ? WHERE name = ?",
      description,
      id!,
      name,
    );
  }

  renameAlias(name: string, to: string): void {
    this.alias(name);
    checkAlias(to);
    if (this.aliases().some((alias) => alias.name === to)) {
      throw new LidoError("conflict", `Alias "${to}" already exists`);
    }
    this.#options.database.run("UPDATE image_aliases SET name = ? WHERE name = ?", to, name);
  }

  deleteAlias(name: string): void {
    this.alias(name);
    this.#options.database.run("DELETE FROM image_aliases WHERE name = ?", name);
    this.#options.events.lifecycle("image-alias-deleted", `/1.0/images/aliases/${name}`);
  }

  async #accept(
    uploaded: Uploaded,
    files: { main: string; rootfs: string },
    headers: ImportHeaders,
    operation: Operation,
  ): Promise<void> {
    const { fingerprint, isSplit } = uploaded;
    const { database, events } = this.#options;
    await this.#locks.hold([fingerprint], async () => {
      if (database.get("SELECT id FROM images WHERE fingerprint = ?", fingerprint)) {
        throw new LidoError("conflict", "Image with same fingerprint already exists");
      }
      const metadata = await this.#check(files, isSplit, operation.signal);
      const [main, rootfs] = this.#files(fingerprint);
      operation.sealUnlessCancelled();
      const wasThere = await access(main).then(() => true, () => false);
      await using open = this.#importing({ fingerprint, wasThere } satisfies ImportIntent);
      await rename(files.main, main);
      if (isSplit) await rename(files.rootfs, rootfs);
      open.commit(() => insert(database, uploaded, metadata, headers));
      operation.update({ fingerprint, size: String(uploaded.sizeBytes) });
      events.lifecycle("image-created", `/1.0/images/${fingerprint}`);
    }, operation.signal);
  }

  async #check(files: { main: string; rootfs: string }, isSplit: boolean, signal: AbortSignal): Promise<ImageMetadata> {
    const { host } = this.#options;
    const compression = await detectCompression(files.main);
    if (compression === "squashfs") {
      throw new LidoError(
        "bad_request",
        "Invalid image: a squashfs alone has no metadata; import it with its metadata tarball",
      );
    }
    const checked = await checkArchive(host, files.main, compression, isSplit ? "metadata" : "unified", signal);
    if (!checked.metadata) throw new LidoError("bad_request", "Invalid image: metadata.yaml is missing");
    if (!isSplit && !checked.hasRootfs) throw new LidoError("bad_request", "Invalid image: it has no rootfs");
    if (isSplit) await checkArchive(host, files.rootfs, await detectCompression(files.rootfs), "rootfs", signal);
    return checked.metadata;
  }

  #files(fingerprint: string): [main: string, rootfs: string] {
    const main = join(this.#options.directory, fingerprint);
    return [main, `${main}.rootfs`];
  }

  async #removeFiles(fingerprint: string): Promise<void> {
    for (const file of this.#files(fingerprint)) await rm(file, { force: true });
  }

  #row(prefix: string): Row {
    if (!/^[0-9a-f]{1,64}$/.test(prefix)) throw notFound("Image", prefix);
    const rows = this.#options.database.all("SELECT * FROM images WHERE fingerprint GLOB ?", `${prefix}*`);
    if (rows.length > 1) throw new LidoError("bad_request", "More than one image matches");
    if (!rows[0]) throw notFound("Image", prefix);
    return rows[0];
  }

  /** Image id → aliases. */
  #aliases(): Map<number, { name: string; description: string }[]> {
    const aliases = new Map<number, { name: string; description: string }[]>();
    for (
      const { image_id, name, description } of this.#options.database.all("SELECT * FROM image_aliases ORDER BY name")
    ) {
      const id = Number(image_id);
      aliases.set(id, [...aliases.get(id) ?? [], { name: String(name), description: String(description) }]);
    }
    return aliases;
  }
}

function insert(database: Database, uploaded: Uploaded, metadata: ImageMetadata, headers: ImportHeaders): void {
  const at = (seconds: number) => new Date(seconds * 1000).toISOString();
  database.run(
    `INSERT INTO images (fingerprint, filename, size, type, architecture, public, properties, created_at, expires_at, uploaded_at)
     VALUES (?, ?, ?, 'container', ?, ?, ?, ?, ?, ?)`,
    uploaded.fingerprint,
    uploaded.filename,
    uploaded.sizeBytes,
    architectures[metadata.architecture] ?? metadata.architecture,
    Number(headers.isPublic),
    JSON.stringify({ ...metadata.properties, ...headers.properties }),
    at(metadata.creation_date),
    metadata.expiry_date ? at(metadata.expiry_date) : null,
    new Date().toISOString(),
  );
}

/** The kernel's names by Debian's. */
const architectures: Readonly<Record<string, string>> = {
  amd64: "x86_64",
  arm64: "aarch64",
  i386: "i686",
  armhf: "armv7l",
};

function view(row: Row, aliases: Map<number, { name: string; description: string }[]>): Image {
  return {
    auto_update: Boolean(row.auto_update),
    properties: JSON.parse(String(row.properties)),
    public: Boolean(row.public),
    expires_at: row.expires_at === null ? never : String(row.expires_at),
    profiles: JSON.parse(String(row.profiles)),
    aliases: aliases.get(Number(row.id)) ?? [],
    architecture: String(row.architecture),
    cached: Boolean(row.cached),
    filename: String(row.filename),
    fingerprint: String(row.fingerprint),
    size: Number(row.size),
    type: "container",
    created_at: String(row.created_at),
    last_used_at: row.last_used_at === null ? never : String(row.last_used_at),
    uploaded_at: String(row.uploaded_at),
  };
}

function viewAlias(row: Row): ImageAliasesEntry {
  return {
    description: String(row.description),
    target: String(row.fingerprint),
    name: String(row.name),
    type: "container",
  };
}

function checkAlias(name: string): void {
  if (!/^[\w.@:+/-]{1,255}$/.test(name) || name.startsWith("/")) {
    throw new LidoError(
      "bad_request",
      `Invalid image alias ${JSON.stringify(name)}: letters, digits and . _ - + @ : / are allowed`,
    );
  }
}
