import { existsSync } from "node:fs";
import { join } from "node:path";

/** The only search path for host tools, whatever the daemon's PATH. */
export const searchPath = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/** Tools that may see the whole host, because nothing that they read or walk is shaped by a container or an archive: they make the kernel work
 * on a pool or a volume as a whole, or read what this program wrote. All others must be started by `Host.confined`. */
export const trustedTools: ReadonlySet<string> = new Set([
  "apparmor_parser",
  "btrfs filesystem",
  "btrfs quota",
  "btrfs device",
  "btrfs subvolume",
  "btrfs --version",
  "crun",
  "lvm",
  "lvchange",
  "lvconvert",
  "lvcreate",
  "lvextend",
  "lvreduce",
  "lvremove",
  "lvrename",
  "lvresize",
  "lvs",
  "modprobe",
  "pvcreate",
  "pvremove",
  "pvresize",
  "pvs",
  "vgchange",
  "vgcreate",
  "vgextend",
  "vgremove",
  "vgs",
  "xfs_growfs",
  "stat",
  "sync",
  // They read no tree: the kernel makes and reads their streams, which all come from pools of this host. Their device reaches every pool of the host,
  // so a root of their own would protect nothing from an exploited one.
  "zfs",
  "zpool",
]);

/** @throws {TypeError} For a tool that must be confined: a bug of this program. */
export function needTrusted(argv: readonly string[]): void {
  const [tool = "", verb = ""] = argv;
  if (trustedTools.has(tool) || trustedTools.has(`${tool} ${verb}`)) return;
  throw new TypeError(`"${argv.join(" ")}" must be confined`);
}

/** Debian packages of the tools that may be missing. */
const packages: Readonly<Record<string, string>> = {
  apparmor_parser: "apparmor",
  btrfs: "btrfs-progs",
  bwrap: "bubblewrap",
  "mkfs.btrfs": "btrfs-progs",
  crun: "crun",
  sqfs2tar: "squashfs-tools-ng",
  xz: "xz-utils",
  zstd: "zstd",
  bzip2: "bzip2",
  zfs: "zfsutils-linux",
  zpool: "zfsutils-linux",
  lvcreate: "lvm2",
  vgcreate: "lvm2",
  "mkfs.xfs": "xfsprogs",
  "mkfs.ext4": "e2fsprogs",
};

/** @returns The absolute path of a tool, or undefined. */
export function findTool(name: string): string | undefined {
  return searchPath.map((directory) => join(directory, name)).find((path) => existsSync(path));
}

/** Error text for a missing tool. */
export function notInstalled(tool: string): string {
  const brought = packages[tool];
  return `"${tool}" is not installed${brought ? ` (Debian package ${brought})` : ""}`;
}
