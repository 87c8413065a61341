/** The format of `btrfs send`: a prefix with a version, then commands, each with a header and attributes.
 * @see fs/btrfs/send.h, https://btrfs.readthedocs.io/en/latest/dev/dev-send-stream.html */

const magic = "btrfs-stream\0";
const prefixBytes = magic.length + 4;
/** Length, kind and checksum. */
const commandHeaderBytes = 10;
const checksumOffset = 6;
const commandMaxBytes = 1 << 20;

export const command = {
  subvolume: 1,
  snapshot: 2,
  makeNode: 5,
  symlink: 8,
  rename: 9,
  link: 10,
  unlink: 11,
  rmdir: 12,
  clone: 16,
  end: 21,
};
export const attribute = {
  uuid: 1,
  mode: 5,
  device: 8,
  xattrName: 13,
  path: 15,
  pathTo: 16,
  pathLink: 17,
  data: 19,
  cloneUuid: 20,
  clonePath: 22,
};

export const truncatedText = "the subvolume's stream is truncated";

/** @param work Gets each whole command and returns its replacement, of the same length.
 * @returns The stream of the replacements. @throws {Error} When it is no stream, or ends within a command. */
export async function* eachCommand(
  stream: AsyncIterable<Uint8Array>,
  work: (bytes: Uint8Array, version: number) => Uint8Array,
): AsyncGenerator<Uint8Array> {
  let rest: Uint8Array = new Uint8Array();
  let version = 0;
  for await (const chunk of stream) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0, passed = 0;
    if (version === 0) {
      if (rest.length < prefixBytes) continue;
      version = versionOf(rest);
      at = prefixBytes;
    }
    for (;;) {
      const length = lengthAt(rest, at);
      if (length === undefined || rest.length < at + length) break;
      const bytes = rest.subarray(at, at + length), made = work(bytes, version);
      if (made !== bytes) {
        if (at > passed) yield rest.subarray(passed, at);
        yield made;
        passed = at + length;
      }
      at += length;
    }
    if (at > passed) yield rest.subarray(passed, at);
    rest = rest.subarray(at);
  }
  if (version === 0 || rest.length > 0) throw new Error(truncatedText);
}

export function kindOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint16(4, true);
}

/** Updates the checksum of a changed command. */
export function seal(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  view.setUint32(checksumOffset, 0, true);
  view.setUint32(checksumOffset, checksum(bytes), true);
}

/** CRC-32C with initial value 0, not inverted. */
function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (const byte of bytes) sum = (sum >>> 8) ^ checksums[(sum ^ byte) & 0xff]!;
  return sum >>> 0;
}

const checksums = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0x82f63b78 : byte >>> 1;
  return byte;
});

/** @returns The subvolume's UUID from the first command of a stream; undefined while there are too few bytes. */
export function streamUuid(head: Uint8Array): string | undefined {
  if (head.length < prefixBytes) return undefined;
  const version = versionOf(head);
  const length = lengthAt(head, prefixBytes);
  if (length === undefined || head.length < prefixBytes + length) return undefined;
  const bytes = head.subarray(prefixBytes, prefixBytes + length);
  const uuid = hex(attributesOf(bytes, version).get(attribute.uuid));
  return uuid.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function versionOf(head: Uint8Array): number {
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const version = view.getUint32(magic.length, true);
  if (new TextDecoder("latin1").decode(head.subarray(0, magic.length)) !== magic || version < 1 || version > 2) {
    throw new Error("it is no stream of a btrfs subvolume");
  }
  return version;
}

function lengthAt(bytes: Uint8Array, at: number): number | undefined {
  if (bytes.length < at + commandHeaderBytes) return undefined;
  const length = new DataView(bytes.buffer, bytes.byteOffset + at, 4).getUint32(0, true) + commandHeaderBytes;
  if (length > commandMaxBytes) throw new Error("the subvolume's stream is damaged: a command is too long");
  return length;
}

/** @param bytes A whole command. @returns Its attributes by number, as views of `bytes`. */
export function attributesOf(bytes: Uint8Array, version: number): Map<number, Uint8Array> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const found = new Map<number, Uint8Array>();
  for (let at = commandHeaderBytes; at < bytes.length;) {
    if (at + 2 > bytes.length) throw new Error("the subvolume's stream is damaged");
    const type = view.getUint16(at, true);
    // In version 2 the data attribute has no length: it is the rest.
    if (version >= 2 && type === attribute.data) break;
    if (at + 4 > bytes.length) throw new Error("the subvolume's stream is damaged");
    const length = view.getUint16(at + 2, true);
    if (at + 4 + length > bytes.length) throw new Error("the subvolume's stream is damaged");
    // Readers differ on which of two counts, so a duplicate is refused.
    if (found.has(type)) throw new Error("the subvolume's stream is damaged: an attribute comes twice");
    found.set(type, bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return found;
}

/** @returns A UUID in hexadecimal without hyphens; "" for undefined. */
export function hex(bytes: Uint8Array | undefined): string {
  return bytes ? Buffer.from(bytes).toString("hex") : "";
}
