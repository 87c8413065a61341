import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Host } from "../../drivers/host/host.ts";
import type { WatchOptions } from "../../drivers/storage/driver.ts";
import { unpackCommand } from "../archives/unpack.ts";
import { detectCompression } from "../archives/compression.ts";

/** Device nodes are the container's own; what an image brings is left out. */
const withoutDevices = (below: string) => [`--exclude=${below}dev/*`, `--exclude=./${below}dev/*`];
const unpackTimeoutMs = 3_600_000;

/** How much an image's files are unpacked, in bytes, where its archive says so without being read.
 * @returns undefined where it does not. @see xz(1), "ROBOT MODE" */
export async function unpackedBytes(host: Host, file: string): Promise<bigint | undefined> {
  const compression = await detectCompression(file);
  if (compression === "none") return BigInt((await stat(file)).size);
  if (compression !== "xz") return undefined;
  const { stdout } = await host.run(["xz", "--robot", "--list", "--", file]);
  const total = /^totals\t\d+\t\d+\t\d+\t(\d+)/m.exec(stdout)?.[1];
  return total === undefined ? undefined : BigInt(total);
}

/** Unpacks an image into a volume: `rootfs/`, `metadata.yaml`, `templates/`. The archives were checked when they were imported.
 * @param files.rootfs The second file of a split image. */
export async function unpackImage(
  host: Host,
  { main, rootfs }: { readonly main: string; readonly rootfs?: string },
  target: string,
  watch: WatchOptions,
): Promise<void> {
  const options = { ...watch, timeoutMs: unpackTimeoutMs };
  const untar = (file: string, to: string, without: readonly string[]) =>
    host.run(unpackCommand(to, file, ["--anchored", "--wildcards", ...without]), options);
  if (rootfs === undefined) return void await untar(main, target, withoutDevices("rootfs/"));
  await untar(main, target, []);
  const directory = join(target, "rootfs");
  await mkdir(directory, { recursive: true });
  if (await detectCompression(rootfs) === "squashfs") {
    await host.run(["unsquashfs", "-force", "-no-progress", "-quiet", "-dest", directory, rootfs], options);
  } else {
    await untar(rootfs, directory, withoutDevices(""));
  }
}
