import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import type { Readable } from "node:stream";
import { parse } from "yaml";
import { z } from "zod";
import { LidoError, messageOf } from "../../api/errors.ts";
import { CommandError, type Host } from "../../drivers/host/host.ts";
import { readTar, type TarEntry } from "./tar_reader.ts";

/** Looks an image's files over before anything of them touches a pool. */

export type Compression = "none" | "gzip" | "xz" | "zstd" | "bzip2" | "squashfs";

const signatures: readonly (readonly [Compression, readonly number[]])[] = [
  ["gzip", [0x1f, 0x8b]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
  ["bzip2", [0x42, 0x5a, 0x68]],
  ["squashfs", [0x68, 0x73, 0x71, 0x73]],
];
const decompressors: Partial<Record<Compression, readonly string[]>> = {
  gzip: ["gzip", "-dc"],
  xz: ["xz", "-dc"],
  zstd: ["zstd", "-dcq"],
  bzip2: ["bzip2", "-dc"],
};
const metadataMaxBytes = 1 << 20;
const entriesMax = 5_000_000;

export const metadataSchema = z.object({
  architecture: z.string().min(1),
  creation_date: z.number().int().default(0),
  expiry_date: z.number().int().default(0),
  properties: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]).transform(String)).nullish()
    .transform((all) => all ?? {}),
}).loose();
export type ImageMetadata = z.infer<typeof metadataSchema>;

/** @returns How the file is packed, by its first bytes. @throws {LidoError} bad_request when it is no archive that we know. */
export async function detectCompression(file: string): Promise<Compression> {
  const handle = await open(file, "r");
  try {
    const head = new Uint8Array(512);
    await handle.read(head, 0, head.length, 0);
    for (const [compression, signature] of signatures) {
      if (signature.every((byte, index) => head[index] === byte)) return compression;
    }
    if (new TextDecoder().decode(head.subarray(257, 262)) === "ustar") return "none";
  } finally {
    await handle.close();
  }
  throw new LidoError(
    "bad_request",
    "Unsupported compression: the image is no tar archive (plain, gzip, xz, zstd, bzip2) and no squashfs",
  );
}

export interface CheckedArchive {
  /** Of `metadata.yaml`, when the archive has one. */
  readonly metadata: ImageMetadata | undefined;
  readonly hasRootfs: boolean;
}

/** Walks a tar archive from end to end. @param below Where a root filesystem is in it: "rootfs" in a unified image, "" when it is one.
 * @throws {LidoError} bad_request for what is damaged, or would reach outside. */
export async function checkArchive(
  host: Host,
  file: string,
  compression: Compression,
  below: string,
  signal?: AbortSignal,
): Promise<CheckedArchive> {
  const source = createReadStream(file, { highWaterMark: 1 << 18 });
  const argv = decompressors[compression];
  const tool = argv && host.pipe(argv, { stdin: source, ...(signal ? { signal } : {}) });
  const stream: Readable = tool?.stdout ?? source;
  try {
    const checked = await walk(readTar(stream as AsyncIterable<Uint8Array>), below);
    await tool?.done;
    return checked;
  } catch (error) {
    source.destroy();
    if (error instanceof LidoError) throw error;
    // The tool's own words say more than the truncation that follows from its failure.
    const cause = await tool?.done.then(() => undefined, (failure) => failure);
    const reason = cause instanceof CommandError ? cause.stderr.trim().split("\n").at(-1) : messageOf(error);
    throw new LidoError("bad_request", `Invalid image: ${reason || messageOf(error)}`);
  } finally {
    stream.destroy();
  }
}

async function walk(entries: AsyncIterable<TarEntry>, below: string): Promise<CheckedArchive> {
  let metadata: ImageMetadata | undefined, hasRootfs = below === "", count = 0;
  const symlinks = new Set<string>();
  for await (const entry of entries) {
    if (++count > entriesMax) throw new LidoError("bad_request", `Invalid image: it has more than ${entriesMax} files`);
    const path = checkEntry(entry, below, symlinks);
    if (path === "rootfs" || path.startsWith("rootfs/")) hasRootfs = true;
    if (path === "metadata.yaml" && below !== "" && entry.type === "file") {
      metadata = readMetadata(await entry.read(metadataMaxBytes));
    }
  }
  return { metadata, hasRootfs };
}

/** @returns The entry's path, normal. */
function checkEntry(entry: TarEntry, below: string, symlinks: Set<string>): string {
  const refuse = (why: string): never => {
    throw new LidoError("bad_request", `Invalid image: ${JSON.stringify(entry.name)} ${why}`);
  };
  const path = normal(entry.name) ?? refuse("leads out of the image");
  const parts = path.split("/");
  for (let depth = 1; depth < parts.length; depth++) {
    if (symlinks.has(parts.slice(0, depth).join("/"))) refuse("goes through a symbolic link of the image");
  }
  if (entry.type === "symlink") symlinks.add(path);
  else symlinks.delete(path);
  if (entry.type === "link" && normal(entry.linkName) === undefined) {
    refuse(`is a hard link out of the image, to ${JSON.stringify(entry.linkName)}`);
  }
  if (entry.type === "character" || entry.type === "block") {
    const devices = below === "" ? "dev/" : `${below}/dev/`;
    if (!path.startsWith(devices)) refuse("is a device node outside of /dev");
  }
  return path;
}

/** @returns Without "./" and the like; undefined for what is absolute or goes up. */
function normal(path: string): string | undefined {
  if (path.startsWith("/") || path.includes("\0")) return undefined;
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  return parts.includes("..") ? undefined : parts.join("/");
}

function readMetadata(bytes: Uint8Array): ImageMetadata {
  let value: unknown;
  try {
    value = parse(new TextDecoder().decode(bytes), { maxAliasCount: 10 });
  } catch (error) {
    throw new LidoError(
      "bad_request",
      `Invalid image: metadata.yaml cannot be read: ${messageOf(error).split("\n")[0]}`,
    );
  }
  const result = metadataSchema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  throw new LidoError(
    "bad_request",
    `Invalid image: metadata.yaml: ${issue.path.join(".") || "content"}: ${issue.message}`,
  );
}
