import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Host } from "../../drivers/host/host.ts";
import { unpackCommand } from "../archives/unpack.ts";
import { detectCompression } from "../archives/compression.ts";

/** Device nodes are the container's own; what an image brings is left out. */
const withoutDevices = (below: string) => [`--exclude=${below}dev/*`, `--exclude=./${below}dev/*`];
const unpackTimeoutMs = 3_600_000;

/** Unpacks an image into a volume: `rootfs/`, `metadata.yaml`, `templates/`. The archives were checked when they were imported.
 * @param rootfs The second file of a split image. */
export async function unpackImage(host: Host, file: string, rootfs: string | undefined, target: string): Promise<void> {
  if (rootfs === undefined) return await untar(host, file, target, withoutDevices("rootfs/"));
  await untar(host, file, target, []);
  const directory = join(target, "rootfs");
  await mkdir(directory, { recursive: true });
  if (await detectCompression(rootfs) === "squashfs") {
    await host.run(["unsquashfs", "-force", "-no-progress", "-quiet", "-dest", directory, rootfs], {
      timeoutMs: unpackTimeoutMs,
    });
  } else {
    await untar(host, rootfs, directory, withoutDevices(""));
  }
}

async function untar(host: Host, file: string, target: string, more: readonly string[]): Promise<void> {
  await host.run(unpackCommand(target, file, ["--anchored", "--wildcards", ...more]), { timeoutMs: unpackTimeoutMs });
}
