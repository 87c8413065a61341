/** Reads the headers of a tar archive as it streams by: ustar, pax and GNU long names. Nothing is unpacked here; this is how an archive is looked at
 * before anything of it touches the disk. @see tar(5) of libarchive, pax(1p) */

const blockBytes = 512;
const nameMaxBytes = 64 * 1024;

export type TarEntryType = "file" | "link" | "symlink" | "character" | "block" | "directory" | "fifo";

export interface TarEntry {
  readonly name: string;
  readonly type: TarEntryType;
  readonly linkName: string;
  readonly sizeBytes: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** The header blocks as they came, extended ones included. */
  readonly header: Uint8Array;
  /** The content blocks as they came, padding included; instead of `read`, and before the next entry is asked for. */
  blocks(): AsyncGenerator<Uint8Array>;
  /** @returns The content of a file. @throws {Error} If it is larger than `maxBytes`. */
  read(maxBytes: number): Promise<Uint8Array>;
}

const types: Readonly<Record<string, TarEntryType>> = {
  "\0": "file",
  "0": "file",
  "7": "file",
  "1": "link",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};

interface PaxRecords {
  readonly path?: string;
  readonly linkpath?: string;
  readonly size?: string;
  readonly uid?: string;
  readonly gid?: string;
}

/** @throws {Error} If the archive is cut off or damaged. */
export async function* readTar(stream: AsyncIterable<Uint8Array>): AsyncGenerator<TarEntry> {
  const input = new Input(stream);
  let next: PaxRecords = {};
  let headers: Uint8Array[] = [];
  for (;;) {
    const header = await input.take(blockBytes);
    if (!header) throw new Error("the archive is truncated: its end mark is missing");
    if (header.every((byte) => byte === 0)) break;
    checkSum(header);
    headers.push(header.slice());
    const flag = String.fromCharCode(header[156]!);
    const size = next.size === undefined ? number(header, 124, 12) : Number(next.size);
    if (!Number.isSafeInteger(size) || size < 0) {
      throw new Error("the archive is damaged: an entry has an impossible size");
    }
    if ("LKxg".includes(flag)) {
      if (size > nameMaxBytes) throw new Error("the archive is damaged: an extended header is too large");
      const content = (await need(input, size)).slice();
      headers.push(content, (await need(input, padding(size))).slice());
      if (flag === "L") next = { ...next, path: text(content, 0, content.length) };
      else if (flag === "K") next = { ...next, linkpath: text(content, 0, content.length) };
      else if (flag === "x") next = { ...next, ...paxRecords(content) };
      continue;
    }
    const type = types[flag];
    if (!type) throw new Error(`the archive has an entry of unknown type ${JSON.stringify(flag)}`);
    const sizeBytes = type === "file" ? size : 0;
    let left = sizeBytes;
    let rest = padding(sizeBytes);
    yield {
      name: next.path ?? name(header),
      linkName: next.linkpath ?? text(header, 157, 100),
      type,
      sizeBytes,
      mode: number(header, 100, 8) & 0o7777,
      uid: Number(next.uid ?? number(header, 108, 8)),
      gid: Number(next.gid ?? number(header, 116, 8)),
      header: Buffer.concat(headers),
      async *blocks() {
        while (left > 0) {
          const part = await input.some(left);
          left -= part.length;
          yield part;
        }
        if (rest === 0) return;
        const zeros = await need(input, rest);
        rest = 0;
        yield zeros;
      },
      read: async (maxBytes) => {
        if (sizeBytes > maxBytes) throw new Error(`it has ${sizeBytes} bytes, ${maxBytes} are allowed`);
        left = 0;
        return await need(input, sizeBytes);
      },
    };
    await skip(input, left + rest);
    next = {};
    headers = [];
  }
  // The rest (padding to the record's size) is read so that a tool behind us does not die of a broken pipe.
  while (await input.drop(1 << 20));
}

/** Bytes from a stream of chunks. */
class Input {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array();

  constructor(stream: AsyncIterable<Uint8Array>) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  /** @returns Exactly `count` bytes, or undefined when the stream has ended. */
  async take(count: number): Promise<Uint8Array | undefined> {
    if (this.#chunk.length >= count) {
      const taken = this.#chunk.subarray(0, count);
      this.#chunk = this.#chunk.subarray(count);
      return taken;
    }
    const result = new Uint8Array(count);
    for (let filled = 0; filled < count;) {
      if (this.#chunk.length === 0 && !await this.#more()) return undefined;
      const part = this.#chunk.subarray(0, count - filled);
      result.set(part, filled);
      filled += part.length;
      this.#chunk = this.#chunk.subarray(part.length);
    }
    return result;
  }

  /** @returns What there is, at most `max` bytes and at least one. @throws {Error} At the end of the stream. */
  async some(max: number): Promise<Uint8Array> {
    if (this.#chunk.length === 0 && !await this.#more()) throw new Error("the archive is truncated");
    const part = this.#chunk.subarray(0, max);
    this.#chunk = this.#chunk.subarray(part.length);
    return part;
  }

  /** Passes over up to `count` bytes. @returns How many there were. */
  async drop(count: number): Promise<number> {
    let dropped = 0;
    while (dropped < count) {
      if (this.#chunk.length === 0 && !await this.#more()) break;
      const part = Math.min(this.#chunk.length, count - dropped);
      this.#chunk = this.#chunk.subarray(part);
      dropped += part;
    }
    return dropped;
  }

  async #more(): Promise<boolean> {
    const { done, value } = await this.#chunks.next();
    if (done) return false;
    this.#chunk = value;
    return value.length > 0 || await this.#more();
  }
}

async function need(input: Input, count: number): Promise<Uint8Array> {
  const bytes = await input.take(count);
  if (!bytes) throw new Error("the archive is truncated");
  return bytes;
}

async function skip(input: Input, count: number): Promise<void> {
  if (await input.drop(count) !== count) throw new Error("the archive is truncated");
}

function padding(size: number): number {
  return (blockBytes - size % blockBytes) % blockBytes;
}

function text(bytes: Uint8Array, start: number, length: number): string {
  const field = bytes.subarray(start, start + length);
  const end = field.indexOf(0);
  return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end));
}

function name(header: Uint8Array): string {
  const prefix = text(header, 257, 6).startsWith("ustar") && header[262] === 0 ? text(header, 345, 155) : "";
  return prefix ? `${prefix}/${text(header, 0, 100)}` : text(header, 0, 100);
}

/** Octal digits, or GNU's binary form for what they cannot hold. */
function number(header: Uint8Array, start: number, length: number): number {
  if (header[start]! & 0x80) {
    return header.subarray(start + 1, start + length).reduce((value, byte) => value * 256 + byte, 0);
  }
  return parseInt(text(header, start, length).trim() || "0", 8);
}

function checkSum(header: Uint8Array): void {
  const sum = header.reduce((total, byte, index) => total + (index >= 148 && index < 156 ? 32 : byte), 0);
  if (sum !== number(header, 148, 8)) throw new Error("the archive is damaged: a header's checksum is wrong");
}

/** "<length> <key>=<value>\n", the length counting itself. */
function paxRecords(bytes: Uint8Array): PaxRecords {
  const records: Record<string, string> = {};
  for (let offset = 0; offset < bytes.length;) {
    const match = /^(\d{1,6}) /.exec(text(bytes, offset, 8));
    const length = Number(match?.[1]);
    if (!match || length < 5 || offset + length > bytes.length) {
      throw new Error("the archive is damaged: a pax header cannot be read");
    }
    const record = new TextDecoder().decode(bytes.subarray(offset + match[0].length, offset + length - 1));
    const equals = record.indexOf("=");
    const key = record.slice(0, equals);
    if (key.startsWith("GNU.sparse.")) throw new Error("the archive has a sparse file, which cannot be checked");
    if (/^(path|linkpath|size|uid|gid)$/.test(key)) records[key] = record.slice(equals + 1);
    offset += length;
  }
  return records;
}

/** @returns Without "./" and the like; undefined for what is absolute or goes up. */
export function normal(path: string): string | undefined {
  if (path.startsWith("/") || path.includes("\0")) return undefined;
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  return parts.includes("..") ? undefined : parts.join("/");
}
