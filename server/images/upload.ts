import { createHash, type Hash } from "node:crypto";
import { open } from "node:fs/promises";
import type { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";

export interface Uploaded {
  readonly fingerprint: string;
  readonly sizeBytes: number;
  readonly filename: string;
  readonly isSplit: boolean;
}

const headerMaxBytes = 16 * 1024;

/** Writes the body of an image upload to disk: one file, or the two parts of a form (`metadata`, then `rootfs`), as LXD's client sends them.
 * The fingerprint is the SHA-256 of all of it, as LXD's. @throws {LidoError} bad_request. */
export async function receiveImage(
  body: Readable,
  contentType: string,
  files: { main: string; rootfs: string },
  filename: string,
): Promise<Uploaded> {
  const boundary = /^multipart\/form-data;.*boundary="?([^";]{1,70})"?/i.exec(contentType)?.[1];
  const hash = createHash("sha256");
  if (boundary === undefined) {
    const sizeBytes = await write(files.main, body as AsyncIterable<Uint8Array>, hash);
    if (sizeBytes === 0) throw new LidoError("bad_request", "Invalid image: the upload is empty");
    return { fingerprint: hash.digest("hex"), sizeBytes, filename, isSplit: false };
  }
  const parts = new MultipartReader(body as AsyncIterable<Uint8Array>, boundary);
  const metadata = await parts.next();
  if (metadata?.name !== "metadata") {
    throw new LidoError("bad_request", "Invalid multipart image: the first part must be the metadata");
  }
  let sizeBytes = await write(files.main, metadata.content, hash);
  const rootfs = await parts.next();
  if (!rootfs || !/^rootfs(\.img)?$/.test(rootfs.name)) {
    throw new LidoError("bad_request", "Invalid multipart image: the second part must be the rootfs");
  }
  if (rootfs.name === "rootfs.img") {
    throw new LidoError("bad_request", "Images of virtual machines cannot be used: lido runs containers");
  }
  sizeBytes += await write(files.rootfs, rootfs.content, hash);
  return { fingerprint: hash.digest("hex"), sizeBytes, filename: metadata.filename || filename, isSplit: true };
}

async function write(path: string, content: AsyncIterable<Uint8Array>, hash: Hash): Promise<number> {
  const file = await open(path, "w", 0o600);
  try {
    let size = 0;
    for await (const chunk of content) {
      hash.update(chunk);
      await file.write(chunk);
      size += chunk.length;
    }
    await file.sync();
    return size;
  } finally {
    await file.close();
  }
}

interface Part {
  readonly name: string;
  readonly filename: string;
  readonly content: AsyncIterable<Uint8Array>;
}

/** Reads the parts of a form one after the other, as a stream. @see RFC 7578, RFC 2046 section 5.1 */
export class MultipartReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #mark: Buffer;
  #buffer: Buffer;
  #ended = false;

  constructor(body: AsyncIterable<Uint8Array>, boundary: string) {
    this.#chunks = body[Symbol.asyncIterator]();
    this.#mark = Buffer.from(`\r\n--${boundary}`);
    // The first boundary has no line break before it.
    this.#buffer = Buffer.from("\r\n");
  }

  /** @returns The next part. What was not read of the previous part's content is skipped. */
  async next(): Promise<Part | undefined> {
    for await (const _ of this.#content()); // text before the first boundary, or the rest of a part
    while (this.#buffer.length < 2 && await this.#more());
    if (this.#buffer.subarray(0, 2).toString() !== "\r\n") return undefined; // "--": the last boundary
    let end: number;
    while ((end = this.#buffer.indexOf("\r\n\r\n")) < 0) {
      if (this.#buffer.length > headerMaxBytes || !await this.#more()) {
        throw new LidoError("bad_request", "Invalid multipart body: a part's header is cut off");
      }
    }
    const header = this.#buffer.subarray(0, end).toString();
    this.#buffer = this.#buffer.subarray(end + 4);
    this.#ended = false;
    const field = (name: string) => new RegExp(`[;\\s]${name}="([^"]*)"`, "i").exec(header)?.[1] ?? "";
    return { name: field("name"), filename: field("filename"), content: this.#content() };
  }

  async *#content(): AsyncGenerator<Uint8Array> {
    while (!this.#ended) {
      const at = this.#buffer.indexOf(this.#mark);
      if (at >= 0) {
        const last = this.#buffer.subarray(0, at);
        this.#buffer = this.#buffer.subarray(at + this.#mark.length);
        this.#ended = true;
        if (last.length > 0) yield last;
        return;
      }
      // Keep the end of the buffer, which may be the beginning of a boundary.
      const safe = this.#buffer.length - this.#mark.length;
      if (safe > 0) {
        yield this.#buffer.subarray(0, safe);
        this.#buffer = this.#buffer.subarray(safe);
      }
      if (!await this.#more()) throw new LidoError("bad_request", "Invalid multipart body: it is cut off");
    }
  }

  async #more(): Promise<boolean> {
    const { done, value } = await this.#chunks.next();
    if (done) return false;
    this.#buffer = this.#buffer.length === 0 ? Buffer.from(value) : Buffer.concat([this.#buffer, value]);
    return true;
  }
}
