import { mkdir, open, rmdir, unlink } from "node:fs/promises";
import type { Capability, Host } from "../host/host.ts";
import type { WatchOptions } from "./driver.ts";

export interface CopyTreeOptions extends WatchOptions {
  /** "always" fails where blocks cannot be shared; "auto" falls back to copying. */
  readonly reflink: "always" | "auto" | "never";
}

/** Capabilities to create files of all owners with their attributes; those of the host (trusted.*: overlayfs's, ours) need CAP_SYS_ADMIN. */
export const writing: readonly Capability[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_MKNOD",
  "CAP_SETFCAP",
  "CAP_SYS_ADMIN",
];

/** Copies a tree with owners, modes, times, xattrs, ACLs, hard links, holes and devices, and its top directory's; `target` does not exist or is
 * an empty directory. One process, whatever the size. It sees only the two trees: a symbolic link that is exchanged in meanwhile cannot lead
 * outside. @see cp(1) */
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

/** A copy of terabytes may take days; this limit only ends a process that hangs. */
const copyTimeoutMs = 7 * 24 * 3_600_000;

/** Returns when all that was written to the filesystem of `path` is on its disk. The database reports success only after that: otherwise a power
 * cut could leave a volume with a row but with no content, or only a part. (LVM and ZFS wait for the disk by themselves, as does every
 * unmount.) @see sync(1), syncfs(2) */
export async function flush(host: Host, path: string): Promise<void> {
  await host.run(["sync", "--file-system", path], { timeoutMs: copyTimeoutMs });
}

/** Returns when a change of a directory itself is on the disk: its owner, or a removed entry. On btrfs this includes the deletion of a subvolume in
 * it, for which the kernel commits the whole transaction. @see fsync(2) */
export async function syncPath(path: string): Promise<void> {
  const handle = await open(path);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Deletes a tree, without crossing into other filesystems; nothing there is no error. An empty directory costs no process. */
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

/** Deletes the content of a directory. @param options.oneFilesystem Fails at a mount point or subvolume that is not empty. */
export async function emptyTree(host: Host, path: string, { oneFilesystem = false } = {}): Promise<void> {
  const argv = ["find", "/tree", "-mindepth", "1", ...(oneFilesystem ? ["-xdev"] : []), "-delete"];
  await host.confined({ writes: { "/tree": path }, capabilities: ["CAP_DAC_OVERRIDE", "CAP_FOWNER"] }).run(argv, {
    timeoutMs: copyTimeoutMs,
  });
}
