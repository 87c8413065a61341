import { check, cString, libc } from "../ffi/libc.ts";
import { readHead } from "./read_head.ts";

/** The root of a running container, for reading its files: its filesystem's type tells whether that can block. */

const O_PATH = 0x200000, O_DIRECTORY = 0x10000, O_CLOEXEC = 0x80000;
const AT_EMPTY_PATH = 0x1000, AT_STATX_DONT_SYNC = 0x4000, STATX_MNT_ID = 0x1000;
/** The root is among a container's first mounts; the container may add a hundred thousand more. */
const headBytes = 64 * 1024;
const wholeBytesMax = 1 << 25;

/** Filesystems that answer as fast as their disk, whoever mounted them. Not overlay, whose layers may be of any other. */
const localTypes: ReadonlySet<string> = new Set(["btrfs", "erofs", "ext4", "f2fs", "squashfs", "tmpfs", "xfs", "zfs"]);
/** Filesystems of the kernel: reading a file may wait for an event, and consume it in place of its reader (/proc/kmsg). */
const kernelTypes: ReadonlySet<string> = new Set([
  ...["autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fusectl"],
  ...["mqueue", "nfsd", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs"],
]);

/** @param pid Its init's. @returns An O_PATH descriptor for the caller to close; undefined when the container has changed its root to one that may
 * not answer: then a file process must be asked. @throws {SystemCallError} ENOENT when it has ended. */
export function openLocalRoot(pid: number): number | undefined {
  const root = openRoot(pid);
  try {
    const type = mountType(pid, root, headBytes);
    if (type !== undefined && localTypes.has(type)) return root;
  } catch (error) {
    libc.close(root);
    throw error;
  }
  libc.close(root);
  return undefined;
}

export function openRoot(pid: number): number {
  const path = `/proc/${pid}/root`;
  return check(`open ${path}`, libc.open(cString(path), O_PATH | O_DIRECTORY | O_CLOEXEC, 0));
}

/** @param fd A file in the mount namespace of process `pid`. @returns The type of its filesystem if that is one of the kernel's. */
export function kernelTypeOf(pid: number, fd: number): string | undefined {
  const type = mountType(pid, fd, wholeBytesMax);
  return type !== undefined && kernelTypes.has(type) ? type : undefined;
}

/** @param bytesMax How much of the container's list of mounts is read. @returns undefined for a mount that is not in that part. */
function mountType(pid: number, fd: number, bytesMax: number): string | undefined {
  // Asks no filesystem: the kernel itself knows the mount's id.
  const stat = new Uint8Array(256);
  const flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
  check("look at a mount", libc.statx(fd, cString(""), flags, STATX_MNT_ID, stat));
  const id = Number(new DataView(stat.buffer).getBigUint64(144, true));
  // No field contains a space: the kernel writes it as \040.
  return new RegExp(`^${id} .*? - (\\S+) `, "m").exec(readHead(`/proc/${pid}/mountinfo`, bytesMax))?.[1];
}
