import { open, rmdir } from "node:fs/promises";
import type { Host } from "../host/host.ts";
import type { WatchOptions } from "./driver.ts";

export interface CopyTreeOptions extends WatchOptions {
  /** "always" fails where blocks cannot be shared; "auto" copies then. */
  readonly reflink: "always" | "auto" | "never";
}

/** Copies a tree with owners, modes, times, xattrs, ACLs, hard links, holes and devices; `target` does not exist or is an
 * empty directory. One process, whatever
 * the size. @see cp(1) */
export async function copyTree(
  host: Host,
  source: string,
  target: string,
  { reflink, ...watch }: CopyTreeOptions,
): Promise<void> {
  await host.run(
    ["cp", "-a", `--reflink=${reflink}`, "--sparse=auto", "--no-target-directory", "--", source, target],
    { ...watch, timeoutMs: copyTimeoutMs },
  );
}

/** A copy of terabytes takes its time; this only ends what hangs for good. */
const copyTimeoutMs = 7 * 24 * 3_600_000;

/** Returns when all that was written to the filesystem of `path` is on its disk. The database says that something is done only after that: a power cut
 * would else leave a volume that is there by its row and empty, or half, by its content. (LVM and ZFS wait for the disk by themselves, as does
 * every unmount.) @see sync(1), syncfs(2) */
export async function flush(host: Host, path: string): Promise<void> {
  await host.run(["sync", "--file-system", path], { timeoutMs: copyTimeoutMs });
}

/** Returns when what was done to a directory itself is on the disk: an owner, a name less. On btrfs also the deletion of a subvolume in it, for
 * which the kernel commits the whole transaction. @see fsync(2) */
export async function syncPath(path: string): Promise<void> {
  const handle = await open(path);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Removes a tree; nothing there is no error. An empty one costs no process. GNU rm walks by fds, so a hostile tree cannot lead it
 * elsewhere, and it stays on this filesystem. */
export async function removeTree(host: Host, path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return;
    if (code !== "ENOTEMPTY" && code !== "ENOTDIR" && code !== "EEXIST") throw error;
    await host.run(["rm", "-rf", "--one-file-system", "--", path], { timeoutMs: copyTimeoutMs });
  }
}
