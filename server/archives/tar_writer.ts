/** Writes tar archives from parsed members and from the daemon's own content: ustar headers, with pax headers for values that do not fit.
 * @see tar(5) of libarchive, pax(1p) */
import type { Member } from "./member.ts";
import { writeMap } from "./sparse_map.ts";
import { blockBytes, paddingOf } from "./tar_fields.ts";

export const endOfArchive = new Uint8Array(2 * blockBytes);

const flags = { file: "0", link: "1", symlink: "2", character: "3", block: "4", directory: "5", fifo: "6" };
const octalMax = { id: 0o7777777, size: 8 ** 11 - 1 };

/** The header of a regular file that root owns. @param name At most 100 bytes. */
export function tarFile(name: string, sizeBytes: number, mode: number): Uint8Array {
  if (Buffer.byteLength(name) > 100) throw new Error(`"${name}" is too long for a tar archive`);
  const mtime = Math.floor(Date.now() / 1000);
  return header({
    name: Buffer.from(name).toString("latin1"),
    flag: "0",
    target: "",
    sizeBytes,
    mode,
    uid: 0,
    gid: 0,
    mtime,
  });
}

/** The padding after a file's content, up to a block. */
export function tarPadding(sizeBytes: number): Uint8Array {
  return new Uint8Array(paddingOf(sizeBytes));
}

/** Bytes to write before a member's content, which follows unchanged and then `tarPadding(contentBytes)`. */
export function encodeHeader(member: Member): { header: Uint8Array; contentBytes: number } {
  const { type, sparse, path, uid, gid, mtime, mode } = member;
  const records: Uint8Array[] = [];
  const add = (key: string, value: string | Uint8Array) => records.push(paxRecord(key, value));
  const map = sparse && writeMap(sparse, member.sizeBytes);
  let contentBytes = member.sizeBytes;
  if (sparse) {
    contentBytes = 0;
    for (let at = 1; at < sparse.length; at += 2) contentBytes += sparse[at]!;
  }
  const storedBytes = contentBytes + (map?.length ?? 0);
  // A directory's name ends with "/", since some readers know directories only by that.
  const name = type === "directory" ? `${path || "."}/` : path;
  const isLong = name.length > 100;
  if (map) {
    add("GNU.sparse.major", "1");
    add("GNU.sparse.minor", "0");
    add("GNU.sparse.name", Buffer.from(name, "latin1"));
    add("GNU.sparse.realsize", String(member.sizeBytes));
  } else if (isLong) add("path", Buffer.from(name, "latin1"));
  const isLink = type === "link" || type === "symlink";
  const target = isLink ? member.target : "";
  if (target.length > 100) add("linkpath", Buffer.from(target, "latin1"));
  if (storedBytes > octalMax.size) add("size", String(storedBytes));
  if (uid > octalMax.id) add("uid", String(uid));
  if (gid > octalMax.id) add("gid", String(gid));
  const seconds = /^\d{1,10}$/.test(mtime) ? Number(mtime) : undefined;
  if (seconds === undefined) add("mtime", mtime);
  for (const [key, value] of member.xattrs) add(`SCHILY.xattr.${key}`, value);
  const main = header({
    name: map ? "sparse" : isLong ? "long" : name,
    flag: flags[type],
    target: target.length > 100 ? "long" : target,
    sizeBytes: storedBytes > octalMax.size ? 0 : storedBytes,
    mode,
    uid: uid > octalMax.id ? 0 : uid,
    gid: gid > octalMax.id ? 0 : gid,
    mtime: seconds ?? 0,
  });
  const parts = records.length === 0 ? [main] : [...extended(records), main];
  return { header: Buffer.concat(map ? [...parts, map] : parts), contentBytes };
}

function extended(records: readonly Uint8Array[]): Uint8Array[] {
  const content = Buffer.concat(records);
  const of = { name: "pax", flag: "x", target: "", sizeBytes: content.length, mode: 0o600, uid: 0, gid: 0, mtime: 0 };
  return [header(of), content, tarPadding(content.length)];
}

/** "<length> <key>=<value>\n", the length counting itself. */
function paxRecord(key: string, value: string | Uint8Array): Uint8Array {
  const bytes = typeof value === "string" ? Buffer.from(value) : value;
  const rest = Buffer.byteLength(key, "latin1") + bytes.length + 3;
  let length = rest + String(rest).length;
  length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`, "latin1"), bytes, Buffer.from("\n")]);
}

interface HeaderFields {
  /** Name and target: at most 100 characters, each for one byte. */
  readonly name: string;
  readonly target: string;
  readonly flag: string;
  readonly sizeBytes: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: number;
}

function header(fields: HeaderFields): Uint8Array {
  const block = Buffer.alloc(blockBytes);
  const octal = (value: number, at: number, length: number) =>
    block.write(value.toString(8).padStart(length - 1, "0"), at);
  block.write(fields.name, 0, 100, "latin1");
  octal(fields.mode, 100, 8);
  octal(fields.uid, 108, 8);
  octal(fields.gid, 116, 8);
  if (fields.sizeBytes <= octalMax.size) octal(fields.sizeBytes, 124, 12);
  else {
    // A size of more than eleven octal digits is binary, as in GNU tar.
    block[124] = 0x80;
    block.writeBigUInt64BE(BigInt(fields.sizeBytes), 128);
  }
  octal(fields.mtime, 136, 12);
  block.fill(" ", 148, 156);
  block.write(fields.flag, 156);
  block.write(fields.target, 157, 100, "latin1");
  block.write("ustar\x0000", 257);
  // Whiteouts (device 0, 0) are the only devices that are written.
  octal(0, 329, 8);
  octal(0, 337, 8);
  let sum = 0;
  for (let at = 0; at < blockBytes; at++) sum += block[at]!;
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}
