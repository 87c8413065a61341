import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { projectRoot } from "./daemon.ts";
import { succeed } from "./command.ts";

/** Makes the busybox image that the quickstart uses too. @returns Its path. */
export function busyboxImage(): Promise<string> {
  return madeImage("busybox", join(projectRoot, "dist/busybox.tar.xz"));
}

/** Makes an image if the cache of scripts/make_image.sh does not have it: half a minute or more for Debian.
 * @param name One of the names that `make_image.sh list` prints. @returns Its path. */
export async function madeImage(
  name: string,
  file = join(process.env.LIDO_IMAGES ?? join(projectRoot, "dist/images"), `${name.replaceAll("/", "-")}.tar.xz`),
): Promise<string> {
  await succeed(["bash", join(projectRoot, "scripts/make_image.sh"), name, file], { timeoutMs: 600_000 });
  return file;
}

/** A tar entry, also of kinds that `tar` would not write. */
export interface Entry {
  readonly name: string;
  /** "0" file, "1" hard link, "2" symlink, "3" character device, "5" directory; "0" when absent. */
  readonly type?: string;
  readonly content?: string;
  readonly target?: string;
  readonly mode?: number;
  /** Size in the header; that of `content` when absent. */
  readonly sizeBytes?: number;
  /** Numbers of a device node; 1, 1 when absent, which is /dev/mem. */
  readonly device?: readonly [major: number, minor: number];
}

/** Encodes the records of a pax header as an entry's content. */
export function pax(records: Readonly<Record<string, string>>): string {
  return Object.entries(records).map(([key, value]) => {
    const rest = ` ${key}=${value}\n`;
    let length = rest.length + 1;
    while (String(length).length + rest.length !== length) length++;
    return `${length}${rest}`;
  }).join("");
}

const metadata = "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  os: hostile\n";

function header(entry: Entry, sizeBytes: number): Uint8Array {
  const block = Buffer.alloc(512);
  const octal = (value: number, width: number) => value.toString(8).padStart(width - 1, "0") + "\0";
  block.write(entry.name, 0, 100);
  block.write(octal(entry.mode ?? 0o755, 8), 100);
  block.write(octal(0, 8), 108);
  block.write(octal(0, 8), 116);
  block.write(octal(sizeBytes, 12), 124);
  block.write(octal(1_700_000_000, 12), 136);
  block.write("        ", 148);
  block.write(entry.type ?? "0", 156);
  block.write(entry.target ?? "", 157, 100);
  block.write("ustar\x0000", 257);
  const [major, minor] = entry.device ?? [1, 1];
  block.write(octal(major, 8), 329);
  block.write(octal(minor, 8), 337);
  block.write(octal(block.reduce((sum, byte) => sum + byte, 0), 7) + " ", 148);
  return block;
}

/** Writes an image with metadata.yaml, an empty rootfs and `entries`, exactly as named. @returns Its path, in its own directory below the
 * temporary directory; `Symbol.dispose` deletes it. */
export function craftedImage(entries: readonly Entry[]): { path: string } & Disposable {
  return craftedArchive([
    { name: "metadata.yaml", content: metadata, mode: 0o644 },
    { name: "rootfs/", type: "5" },
    ...entries,
  ]);
}

/** Writes an archive that has `entries` alone. @param end Bytes that follow them; a tar archive's end mark when absent. */
export function craftedArchive(entries: readonly Entry[], end = Buffer.alloc(1024)): { path: string } & Disposable {
  const blocks = entries.flatMap((entry) => {
    const content = Buffer.from(entry.content ?? "");
    const padding = Buffer.alloc((512 - content.length % 512) % 512);
    return [header(entry, entry.sizeBytes ?? content.length), content, padding];
  });
  const directory = mkdtempSync(join(tmpdir(), "lido-image-"));
  const path = join(directory, "image.tar");
  writeFileSync(path, Buffer.concat([...blocks, end]));
  return { path, [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) };
}

/** The first `fraction` of a file, as after an interrupted download. */
export function truncated(source: string, fraction: number): { path: string } & Disposable {
  const directory = mkdtempSync(join(tmpdir(), "lido-image-"));
  const path = join(directory, "image.tar.xz");
  const bytes = readFileSync(source);
  writeFileSync(path, bytes.subarray(0, Math.floor(bytes.length * fraction)));
  return { path, [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) };
}
