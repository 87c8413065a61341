/** Reads a tar archive as a stream: v7, ustar, pax and GNU's formats, sparse files included. Nothing but these entries is used of an archive: what is
 * unpacked is written anew from them (tar_writer.ts), so no second reader of the original could understand it differently.
 * @see tar(5) of libarchive, pax(1p), "Extensions to the archive format" in GNU tar's manual */
import { ByteInput } from "./byte_input.ts";
import { checkedMap, commaMap, readNewMap, readOldMap, type SparseMap } from "./sparse_map.ts";
import {
  blockBytes,
  bytesText,
  checkSum,
  damaged,
  numberField,
  paddingOf,
  paxRecords,
  textField,
} from "./tar_fields.ts";

/** Limit on the extended headers of one entry: names, and all attributes of a file. */
const extendedMaxBytes = 8 << 20;
const nameMaxBytes = 64 * 1024;
/** Limit on the bytes after the end mark: they pad the last record, whose size the writer chose. */
const afterEndMaxBytes = 16 << 20;
const idMax = 0xffff_fffe;

export type TarEntryType = "file" | "link" | "symlink" | "character" | "block" | "directory" | "fifo";

export interface TarEntry {
  /** Byte for byte, see `bytesText`; not checked. */
  readonly name: string;
  readonly type: TarEntryType;
  /** Target of a link; byte for byte, not checked. */
  readonly linkName: string;
  /** Size of a file, holes included; 0 for other types. */
  readonly sizeBytes: number;
  /** Permission bits only. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds in decimal digits, with or without a fraction. */
  readonly mtime: string;
  readonly device: { readonly major: number; readonly minor: number };
  /** Extended attributes by their names, not checked. */
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
  /** Set for a file with holes. */
  readonly sparse?: SparseMap;
  /** The data, without holes. To be called once, instead of `read`, and before the next entry is requested. */
  content(): AsyncGenerator<Uint8Array>;
  /** @returns The content of a file without holes. @throws {Error} If it is larger than `maxBytes`. */
  read(maxBytes: number): Promise<Uint8Array>;
}

const types: Readonly<Record<string, TarEntryType>> = {
  "\0": "file",
  "0": "file",
  "7": "file",
  S: "file",
  "1": "link",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};

/** Content of the extended headers before an entry. */
interface Extended {
  readonly pax: Map<string, Uint8Array>;
  readonly xattrs: Map<string, Uint8Array>;
  /** Sparse map of GNU's format 0.0, whose records are repeated for each part. */
  readonly parts: number[];
  longName?: string;
  longLink?: string;
  bytes: number;
}

/** @throws {Error} If the archive is truncated, damaged, or says something that two readers could understand differently. */
export async function* readTar(stream: AsyncIterable<Uint8Array>): AsyncGenerator<TarEntry> {
  const input = new ByteInput(stream);
  let extended = noExtended();
  for (;;) {
    const taken = await input.take(blockBytes);
    if (!taken) throw new Error("the archive is truncated: its end mark is missing");
    if (isZero(taken)) break;
    const header = taken.slice();
    checkSum(header);
    const flag = String.fromCharCode(header[156]!);
    // The size in this header: a "size" in a pax header applies to the entry that follows, never to another extended header before it.
    const size = numberField(header, 124, 12);
    if (size < 0) throw damaged("an entry has an impossible size");
    if ("LKxg".includes(flag)) {
      await readExtended(flag, size, input, extended);
      continue;
    }
    const open = await openEntry(flag, size, header, input, extended);
    yield open.entry;
    await input.skip(open.left());
    extended = noExtended();
  }
  if (extended.bytes > 0) throw damaged("it ends with an extended header");
  // Read the rest, so that the tool that writes it does not die of a broken pipe.
  for (let after = 0;;) {
    const dropped = await input.drop(1 << 16);
    if (dropped === 0) return;
    if ((after += dropped) > afterEndMaxBytes) throw damaged("something follows its end mark");
  }
}

const noExtended = (): Extended => ({ pax: new Map(), xattrs: new Map(), parts: [], bytes: 0 });

async function readExtended(flag: string, size: number, input: ByteInput, extended: Extended): Promise<void> {
  extended.bytes += size + blockBytes;
  if (extended.bytes > extendedMaxBytes || (size > nameMaxBytes && "LK".includes(flag))) {
    throw damaged("an extended header is too large");
  }
  const content = (await input.need(size)).slice();
  await input.skip(paddingOf(size));
  if (flag === "L") extended.longName = textField(content, 0, size);
  else if (flag === "K") extended.longLink = textField(content, 0, size);
  else if (flag === "g") checkGlobal(content);
  else for (const [key, value] of paxRecords(content)) addRecord(extended, key, value);
}

/** Global headers apply to all entries that follow, but readers do not agree on how. Writers use them for a comment.
 * @throws {Error} If one has a key that would be used here. */
function checkGlobal(content: Uint8Array): void {
  for (const [key] of paxRecords(content)) {
    if (/^(path|linkpath|size|uid|gid|mtime|hdrcharset)$|^(GNU\.sparse|SCHILY\.xattr)\./.test(key)) {
      throw new Error(`the archive has a global pax header with "${key}", which is not supported`);
    }
  }
}

function addRecord(extended: Extended, key: string, value: Uint8Array): void {
  const attribute = /^SCHILY\.xattr\.(.+)$/s.exec(key)?.[1];
  if (attribute !== undefined) extended.xattrs.set(attribute, value);
  else if (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes") {
    if (extended.parts.length % 2 !== Number(key === "GNU.sparse.numbytes")) {
      throw damaged("a map of a sparse file cannot be read");
    }
    extended.parts.push(decimal(value));
  } else if (/^(path|linkpath|size|uid|gid|mtime)$|^GNU\.sparse\./.test(key)) {
    // An empty value means none.
    if (value.length === 0 && key !== "GNU.sparse.map") extended.pax.delete(key);
    else extended.pax.set(key, value);
  }
}

async function openEntry(flag: string, size: number, header: Uint8Array, input: ByteInput, extended: Extended) {
  const { pax, xattrs } = extended;
  const name = wholeText(pax.get("GNU.sparse.name") ?? pax.get("path")) ?? extended.longName ?? nameField(header);
  let type = types[flag];
  if (!type) throw new Error(`the archive has an entry of unknown type ${JSON.stringify(flag)}`);
  // Before ustar, a directory was a file whose name ends with "/".
  if (type === "file" && name.endsWith("/")) type = "directory";
  const storedBytes = pax.has("size") ? decimal(pax.get("size")!) : size;
  if (type !== "file" && storedBytes !== 0) {
    throw damaged(`an entry of type ${JSON.stringify(flag)} has a size, which only files have`);
  }
  const number = (key: string, start: number) => {
    const value = pax.has(key) ? decimal(pax.get(key)!) : numberField(header, start, 8);
    if (value < 0 || value > idMax) throw damaged(`an entry has ${key} ${value}`);
    return value;
  };
  const isDevice = type === "character" || type === "block";
  const shape = type === "file"
    ? await sparseShape(flag, header, storedBytes, input, extended)
    : { sizeBytes: 0, dataBytes: 0, mapBytes: 0 };
  let left = shape.dataBytes;
  const entry: TarEntry = {
    name,
    linkName: wholeText(pax.get("linkpath")) ?? extended.longLink ?? textField(header, 157, 100),
    type,
    sizeBytes: shape.sizeBytes,
    mode: numberField(header, 100, 8) & 0o7777,
    uid: number("uid", 108),
    gid: number("gid", 116),
    mtime: pax.has("mtime") ? time(pax.get("mtime")!) : String(numberField(header, 136, 12)),
    device: isDevice
      ? { major: numberField(header, 329, 8), minor: numberField(header, 337, 8) }
      : { major: 0, minor: 0 },
    xattrs,
    ...(shape.sparse ? { sparse: shape.sparse } : {}),
    async *content() {
      while (left > 0) {
        const part = await input.some(left);
        left -= part.length;
        yield part;
      }
    },
    read: async (maxBytes) => {
      if (shape.sparse || type !== "file") throw new Error("it is no plain file");
      if (shape.sizeBytes > maxBytes) throw new Error(`it has ${shape.sizeBytes} bytes, ${maxBytes} are allowed`);
      left = 0;
      return (await input.need(shape.sizeBytes)).slice();
    },
  };
  return { entry, left: () => left + paddingOf(shape.mapBytes + shape.dataBytes) };
}

/** A file's stored bytes and its size, in any of the formats for files with holes. */
async function sparseShape(
  flag: string,
  header: Uint8Array,
  storedBytes: number,
  input: ByteInput,
  { pax, parts }: Extended,
): Promise<
  { sizeBytes: number; dataBytes: number; mapBytes: number; sparse?: SparseMap }
> {
  const isPax = [...pax.keys()].some((key) => key.startsWith("GNU.sparse.")) || parts.length > 0;
  if (flag === "S") {
    if (isPax) throw damaged("a sparse file has two maps");
    const numbers = await readOldMap(header, input);
    const sizeBytes = numberField(header, 483, 12);
    return { sizeBytes, dataBytes: storedBytes, mapBytes: 0, sparse: checkedMap(numbers, sizeBytes, storedBytes) };
  }
  if (!isPax) return { sizeBytes: storedBytes, dataBytes: storedBytes, mapBytes: 0 };
  const number = (key: string) => pax.has(key) ? decimal(pax.get(key)!) : undefined;
  const sizeBytes = number("GNU.sparse.realsize") ?? number("GNU.sparse.size");
  if (sizeBytes === undefined) throw damaged("a sparse file has no size");
  const major = number("GNU.sparse.major"), minor = number("GNU.sparse.minor");
  if (major === 1 && minor === 0) {
    if (parts.length > 0 || pax.has("GNU.sparse.map")) throw damaged("a sparse file has two maps");
    const { numbers, bytes } = await readNewMap(input, storedBytes);
    const dataBytes = storedBytes - bytes;
    return { sizeBytes, dataBytes, mapBytes: bytes, sparse: checkedMap(numbers, sizeBytes, dataBytes) };
  }
  if ((major ?? 0) !== 0) throw new Error("the archive has a sparse file in an unknown format");
  if (parts.length > 0 && pax.has("GNU.sparse.map")) throw damaged("a sparse file has two maps");
  const numbers = pax.has("GNU.sparse.map") ? commaMap(pax.get("GNU.sparse.map")!) : parts;
  return { sizeBytes, dataBytes: storedBytes, mapBytes: 0, sparse: checkedMap(numbers, sizeBytes, storedBytes) };
}

function nameField(header: Uint8Array): string {
  const prefix = textField(header, 257, 6) === "ustar" ? textField(header, 345, 155) : "";
  return prefix ? `${prefix}/${textField(header, 0, 100)}` : textField(header, 0, 100);
}

/** @throws {Error} For a NUL, at which the kernel would end the name. */
function wholeText(bytes: Uint8Array | undefined): string | undefined {
  if (bytes?.includes(0)) throw damaged("a name has a NUL in it");
  return bytes && bytesText(bytes);
}

function decimal(bytes: Uint8Array): number {
  const text = bytesText(bytes);
  const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value)) throw damaged("a number in a pax header cannot be read");
  return value;
}

function time(bytes: Uint8Array): string {
  const text = bytesText(bytes);
  if (!/^-?\d{1,15}(\.\d{0,30})?$/.test(text)) throw damaged("a time in a pax header cannot be read");
  return text.replace(/(\.\d{9})\d+$/, "$1").replace(/\.$/, "");
}

function isZero(block: Uint8Array): boolean {
  return block[0] === 0 && block.every((byte) => byte === 0);
}
