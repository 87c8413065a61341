import { createReadStream } from "node:fs";
import type { Readable } from "node:stream";
import { parse } from "yaml";
import { z } from "zod";
import { LidoError, messageOf } from "../../api/errors.ts";
import { CommandError, type Host } from "../../drivers/host/host.ts";
import { type Compression, decompressors } from "../archives/compression.ts";
import { normal, readTar, type TarEntry } from "../archives/tar_reader.ts";

/** Looks an image's files over before anything of them touches a pool. */

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
    stream.destroy(); // a tool that still has something to write would wait for ever
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
