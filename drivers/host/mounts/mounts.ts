import { readFileSync } from "node:fs";
import { canIdmap, setMountOptions } from "./idmap.ts";
import type { MountEntry, Mounts } from "../host.ts";
import { check, cString, libc, SystemCallError } from "../ffi/libc.ts";

/** Generic mount flags by option name; all other options go to the filesystem. @see mount(2) */
const flags: Record<string, number> = {
  ro: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  sync: 16,
  noatime: 1024,
  nodiratime: 2048,
  bind: 4096,
  rec: 16384,
  relatime: 1 << 21,
  strictatime: 1 << 24,
  lazytime: 1 << 25,
};
const neutral = new Set(["rw", "defaults", "suid", "dev", "exec", "async"]);
const MNT_DETACH = 2, UMOUNT_NOFOLLOW = 8;
const EINVAL = 22, ENOENT = 2;

export class HostMounts implements Mounts {
  // deno-lint-ignore require-await -- async as the contract: other hosts may take time
  async mount(source: string, target: string, type: string, options: readonly string[] = []): Promise<void> {
    let bits = 0;
    const data: string[] = [];
    for (const option of options.filter((option) => option !== "" && !neutral.has(option))) {
      const flag = flags[option];
      if (flag === undefined) data.push(option);
      else bits |= flag;
    }
    check(
      `mount ${source} at ${target}`,
      libc.mount(
        cString(source),
        cString(target),
        cString(type),
        bits,
        data.length > 0 ? cString(data.join(",")) : null,
      ),
    );
  }

  bind(source: string, target: string): Promise<void> {
    return this.mount(source, target, "none", ["bind", "rec"]);
  }

  // deno-lint-ignore require-await -- as above
  async forbidDevices(target: string): Promise<void> {
    setMountOptions(target, ["nodev"]);
  }

  // deno-lint-ignore require-await -- as above
  async unmount(target: string, options: { lazy?: boolean } = {}): Promise<void> {
    const path = cString(target);
    const how = UMOUNT_NOFOLLOW | (options.lazy ? MNT_DETACH : 0);
    for (;;) {
      try {
        check(`unmount ${target}`, libc.umount2(path, how));
      } catch (error) {
        // EINVAL: not a mount point, or no longer one.
        if (error instanceof SystemCallError && (error.errno === EINVAL || error.errno === ENOENT)) return;
        throw error;
      }
    }
  }

  /** Synchronous: the kernel generates the list in memory, so a thread would save nothing. */
  // deno-lint-ignore require-await -- as above
  async list(): Promise<MountEntry[]> {
    return parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8"));
  }

  async at(target: string): Promise<MountEntry | undefined> {
    return (await this.list()).findLast((entry) => entry.target === target);
  }

  canIdmap(path: string): Promise<boolean> {
    return canIdmap(path);
  }
}

/** @see proc_pid_mountinfo(5) */
export function parseMountInfo(text: string): MountEntry[] {
  return text.split("\n").filter(Boolean).map((line) => {
    const fields = line.split(" ");
    const separator = fields.indexOf("-", 6);
    if (separator < 0 || fields.length < separator + 4) {
      throw new Error(`Cannot read a line of mountinfo: ${JSON.stringify(line)}`);
    }
    const [id, , device, root, target, options] = fields as [string, string, string, string, string, string];
    const [type, source, superOptions] = fields.slice(separator + 1) as [string, string, string];
    return {
      id: Number(id),
      device,
      root: unescape(root),
      target: unescape(target),
      options: options.split(","),
      type,
      source: unescape(source),
      superOptions: superOptions.split(","),
    };
  });
}

/** The kernel writes space, tab, newline and backslash as three octal digits. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
}

/** Filesystems that answer as fast as the host's own disks. Others depend on a network or on a process. */
const localTypes: ReadonlySet<string> = new Set([
  ...["bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "overlay", "ramfs"],
  ...["squashfs", "tmpfs", "vfat", "xfs", "zfs"],
]);

/** The uppermost mount at exactly `target`, from the kernel's list: the filesystem itself, which may never answer, is not asked.
 * @returns The mount's identity, and whether its filesystem may not answer. */
export function mountAt(target: string): { readonly identity: string; readonly mayHang: boolean } | undefined {
  const mount = parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8")).findLast((one) => one.target === target);
  return mount && { identity: `${mount.id} ${mount.device} ${mount.root}`, mayHang: !localTypes.has(mount.type) };
}

/** Whether the filesystem of a path may not answer, by the kernel's list: the filesystem is not asked.
 * @param path Absolute, without symbolic links and mounts of others on the way. */
export function mayHang(path: string): boolean {
  const mounts = parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8"));
  const isOver = ({ target }: MountEntry) => target === "/" || path === target || path.startsWith(`${target}/`);
  const over = mounts.filter(isOver);
  const depth = Math.max(...over.map(({ target }) => target.length));
  const mount = over.findLast(({ target }) => target.length === depth);
  return mount !== undefined && !localTypes.has(mount.type);
}
