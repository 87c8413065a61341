import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Host } from "../../drivers/host/host.ts";
import type { WatchOptions } from "../../drivers/storage/driver.ts";
import { detectCompression } from "../archives/compression.ts";
import { tellsUnpackedBytes, unpackArchive } from "./archive.ts";

/** Size of an image's unpacked files, in bytes, where it is known without reading the whole archive.
 * @returns undefined where it is not. @see xz(1), "ROBOT MODE" */
export async function unpackedBytes(host: Host, file: string): Promise<bigint | undefined> {
  const compression = await detectCompression(file);
  if (compression === "none") return BigInt((await stat(file)).size);
  if (!tellsUnpackedBytes(compression)) return undefined;
  const { stdout } = await host.confined({ reads: { "/archive": file } }).run([
    "xz",
    "--robot",
    "--list",
    "--",
    "/archive",
  ]);
  const total = /^totals\t\d+\t\d+\t\d+\t(\d+)/m.exec(stdout)?.[1];
  return total === undefined ? undefined : BigInt(total);
}

/** Unpacks an image into a volume: `rootfs/`, `metadata.yaml`, `templates/`.
 * @param files.rootfs The second file of a split image. */
export async function unpackImage(
  host: Host,
  { main, rootfs }: { readonly main: string; readonly rootfs?: string },
  target: string,
  watch: WatchOptions,
): Promise<void> {
  const isUnified = rootfs === undefined;
  if (isUnified) return await unpackArchive(host, main, await detectCompression(main), "unified", target, watch);
  // No progress for the metadata: it is tiny beside the other file.
  const untold = watch.signal ? { signal: watch.signal } : {};
  await unpackArchive(host, main, await detectCompression(main), "metadata", target, untold);
  await mkdir(join(target, "rootfs"));
  await unpackArchive(host, rootfs, await detectCompression(rootfs), "rootfs", target, watch);
}
