import { mkdir, open, rmdir, unlink } from "node:fs/promises";
import type { Capability, Host } from "../host/host.ts";
import type { WatchOptions } from "./driver.ts";

export interface CopyTreeOptions extends WatchOptions {
  /** "always" fails where blocks cannot be shared; "auto" copies then. */
  readonly reflink: "always" | "auto" | "never";
}

/** To make files of all owners with all that hangs on them; attributes of the host's own (overlayfs's, ours) are for CAP_SYS_ADMIN alone. */
export const writing: readonly Capability[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_MKNOD",
  "CAP_SETFCAP",
  "CAP_SYS_ADMIN",
];

/** Copies a tree with owners, modes, times, xattrs, ACLs, hard links, holes and devices, and those of its top; `target` does not exist or is an
 * empty directory. One process, whatever the size, that sees nothing but the two: what somebody exchanges with a symbolic link meanwhile leads
 * nowhere else. @see cp(1) */
export async function copyTree(
  host: Host,
  source: string,
  target: string,
  { reflink, ...watch }: CopyTreeOptions,
): Promise<void> {
  await mkdir(target, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
  await host.confined({ reads: { "/source": source }, writes: { "/target": target }, capabilities: writing }).run(
    ["cp", "-a", `--reflink=${reflink}`, "--sparse=auto", "--", "/source/.", "/target"],
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

/** Removes a tree; nothing there is no error. An empty one costs no process. It stays on this filesystem. */
export async function removeTree(host: Host, path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return;
    if (code === "ENOTDIR") return await unlink(path);
    if (code !== "ENOTEMPTY" && code !== "EEXIST") throw error;
    await emptyTree(host, path, { oneFilesystem: true });
    await rmdir(path);
  }
}

/** Removes what is in a directory. @param options.oneFilesystem Fails at a mount point or subvolume that is not empty. */
export async function emptyTree(host: Host, path: string, { oneFilesystem = false } = {}): Promise<void> {
  const argv = ["find", "/tree", "-mindepth", "1", ...(oneFilesystem ? ["-xdev"] : []), "-delete"];
  await host.confined({ writes: { "/tree": path }, capabilities: ["CAP_DAC_OVERRIDE", "CAP_FOWNER"] }).run(argv, {
    timeoutMs: copyTimeoutMs,
  });
}
