import { stat } from "node:fs/promises";
import { z } from "zod";
import { LidoError, messageOf } from "../../api/errors.ts";
import { refusal } from "../../api/refusal.ts";
import { CommandError, type Host } from "../../drivers/host/host.ts";
import type { WatchOptions } from "../../drivers/storage/driver.ts";
import { parseHostileYaml } from "../archives/hostile_yaml.ts";
import { type OpenArchive, openArchive } from "../archives/archive_file.ts";
import type { Compression } from "../archives/compression.ts";
import { cleanPath, type Member, memberOf } from "../archives/member.ts";
import { shown } from "../archives/tar_fields.ts";
import type { TarEntry } from "../archives/tar_reader.ts";
import { TreeCheck } from "../archives/tree_stream.ts";
import { unpackTree } from "../archives/unpack.ts";

/** The files of an image: checked at the import, before anything of them is on a pool, and checked again while they are unpacked there. */

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

/** Role of an archive in an image: the whole image, or one of the two files of a split image. */
export type ImagePart = "unified" | "metadata" | "rootfs";

/** Reads and checks a whole archive.
 * @throws {LidoError} bad_request when it is damaged, or an entry leads out of the image. */
export async function checkArchive(
  host: Host,
  file: string,
  compression: Compression,
  part: ImagePart,
  signal?: AbortSignal,
): Promise<CheckedArchive> {
  return await readImage(host, file, compression, signal, async (entries) => {
    let metadata: ImageMetadata | undefined, hasRootfs = part === "rootfs";
    const check = new TreeCheck();
    for await (const { entry, member } of imageMembers(entries, part)) {
      check.admit(member);
      if (member.path.startsWith("rootfs")) hasRootfs = true;
      if (member.path === "metadata.yaml") metadata = readMetadata(await entry.read(metadataMaxBytes));
    }
    return { metadata, hasRootfs };
  });
}

/** Whether the unpacked size is known in advance: then progress counts unpacked bytes, else the bytes of the file that have been read. */
export const tellsUnpackedBytes = (compression: Compression): boolean => compression === "none" || compression === "xz";

/** Unpacks an archive below `target`, the directory of the image: `metadata.yaml`, `templates/`, `rootfs/`. Entries are checked again, since the
 * file may have changed after the import. */
export async function unpackArchive(
  host: Host,
  file: string,
  compression: Compression,
  part: ImagePart,
  target: string,
  watch: WatchOptions,
): Promise<void> {
  const { signal, progress } = watch;
  const fileBytes = BigInt((await stat(file)).size);
  await readImage(host, file, compression, signal, async (entries, archive) => {
    const members = async function* () {
      for await (const { member } of imageMembers(entries, part)) yield member;
    };
    const consumed = progress && !tellsUnpackedBytes(compression)
      ? { progress: () => progress(archive.consumed(), fileBytes) }
      : {};
    await unpackTree(host, members(), target, { ...watch, ...consumed });
  });
}

/** @throws {LidoError} bad_request, with the decompressor's message if it failed, else the reader's. */
async function readImage<T>(
  host: Host,
  file: string,
  compression: Compression,
  signal: AbortSignal | undefined,
  use: (entries: AsyncGenerator<TarEntry>, archive: OpenArchive) => Promise<T>,
): Promise<T> {
  const archive = openArchive(host, file, compression, signal);
  try {
    const result = await use(archive.entries, archive);
    await archive.end();
    return result;
  } catch (error) {
    const cause = await archive.cause();
    signal?.throwIfAborted(); // a cancelled read fails in many ways
    if (error instanceof LidoError) throw error;
    if (error instanceof CommandError && error.argv[0] === "tar") throw error;
    throw invalid(cause ?? messageOf(error));
  } finally {
    archive.close();
  }
}

/** The entries that belong to an image, each after it was checked. Others are skipped. */
async function* imageMembers(
  entries: AsyncIterable<TarEntry>,
  part: ImagePart,
): AsyncGenerator<{ entry: TarEntry; member: Member }> {
  let count = 0;
  for await (const entry of entries) {
    if (++count > entriesMax) throw invalid(`it has more than ${entriesMax} files`);
    const refuse = (why: string): never => {
      throw invalid(`${shown(entry.name)} ${why}`);
    };
    const place = (name: string) => cleanPath(part === "rootfs" ? `rootfs/${name}` : name, { allowAbsolute: true });
    const path = place(entry.name) ?? refuse(outside);
    // Skip the directory of the image itself, and the content of /dev, which each container has of its own.
    if (path === "" || path.startsWith("rootfs/dev/")) continue;
    const [top] = path.split("/", 1);
    if (top !== "rootfs" && top !== "templates" && path !== "metadata.yaml") {
      if (entry.name.startsWith("/")) refuse("leads out of the image");
      continue;
    }
    if (part === "metadata" && top === "rootfs") {
      if (path !== top || entry.type !== "directory") {
        refuse("is in the metadata, but the image has its rootfs in a file of its own");
      }
      continue;
    }
    checkType(entry, path, top!, refuse);
    const target = entry.type === "link" ? place(entry.linkName) : "";
    if (target === undefined || (entry.type === "link" && !target.startsWith(`${top}/`))) {
      return refuse(`is a hard link out of the image, to ${shown(entry.linkName)}`);
    }
    yield { entry, member: memberOf(entry, path, target, refuse) };
  }
}

const outside = "leads out of the image, or is longer than a path may be";

/** Files that the daemon itself reads must be regular; the root filesystem may have any type, except at its top. */
function checkType({ type }: TarEntry, path: string, top: string, refuse: (why: string) => never): void {
  if (path === "metadata.yaml") {
    if (type !== "file") refuse("is no file");
  } else if (path === top) {
    if (type !== "directory") refuse("is no directory");
  } else if (top === "templates" && type !== "file" && type !== "directory" && type !== "link") {
    refuse("is neither a file nor a directory");
  }
}

function invalid(why: string): LidoError {
  return new LidoError("bad_request", `Invalid image: ${why}`);
}

function readMetadata(bytes: Uint8Array): ImageMetadata {
  let value: unknown;
  try {
    value = parseHostileYaml(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new LidoError(
      "bad_request",
      `Invalid image: metadata.yaml cannot be read: ${messageOf(error).split("\n")[0]}`,
    );
  }
  const result = metadataSchema.safeParse(value);
  if (result.success) return result.data;
  const { field, reason } = refusal(result.error, value);
  throw new LidoError("bad_request", `Invalid image: metadata.yaml: ${field || "content"}: ${reason}`);
}
