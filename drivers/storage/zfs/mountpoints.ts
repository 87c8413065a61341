import { mkdir, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Host } from "../../host/host.ts";
import type { Pool, Volume } from "../driver.ts";
import { directoryOf, repairMode, snapshotsDirectory } from "../layout.ts";
import { names } from "./layout.ts";
import type { ZfsTool } from "./tool.ts";

/** Mounts datasets by mount(2), which takes a legacy dataset by name and needs no helper process. A mount point exists only while something is
 * mounted on it, so that nothing is written to the directory below by mistake. */
export class Mountpoints {
  readonly #host: Host;
  readonly #pool: Pool;
  readonly #tool: ZfsTool;

  constructor(host: Host, pool: Pool, tool: ZfsTool) {
    this.#host = host;
    this.#pool = pool;
    this.#tool = tool;
  }

  path(volume: Volume): string {
    return join(this.#pool.root, directoryOf(volume));
  }

  /** Mounts a volume, or a snapshot read-only, as ZFS does. A second mount is no error. */
  async mount(volume: Volume): Promise<void> {
    const path = this.path(volume);
    if (await this.#host.mounts.at(path)) return;
    const dataset = names.of(names.top(this.#pool), volume);
    this.#tool.refuseSuspended(dataset);
    await mkdir(path, { recursive: true, mode: 0o700 });
    await this.#host.mounts.mount(dataset, path, "zfs", ["nodev", ...(volume.snapshot === undefined ? [] : ["ro"])]);
    if (volume.snapshot === undefined) await repairMode(path, volume);
  }

  /** Not mounted is no error. @throws {SystemCallError} EBUSY. */
  async unmount(volume: Volume): Promise<void> {
    const path = this.path(volume);
    await this.#host.mounts.unmount(path);
    await drop(path);
    if (volume.snapshot !== undefined) await drop(dirname(path));
  }

  /** Unmounts the volume and all its snapshots. */
  async unmountAll({ type, name }: Volume): Promise<void> {
    const snapshots = join(this.#pool.root, snapshotsDirectory({ type, name }));
    for (const { target } of (await this.#host.mounts.list()).reverse()) {
      if (dirname(target) !== snapshots) continue;
      await this.#host.mounts.unmount(target);
      await drop(target);
    }
    await drop(snapshots);
    await this.unmount({ type, name });
  }

  /** Runs `work` while the volume is mounted. */
  async while<T>(volume: Volume, work: (path: string) => Promise<T>): Promise<T> {
    await this.mount(volume);
    try {
      return await work(this.path(volume));
    } finally {
      await this.unmount(volume);
    }
  }
}

async function drop(directory: string): Promise<void> {
  await rmdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT" && error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error;
  });
}
