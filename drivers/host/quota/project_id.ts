import { check, cString, errno, libc, SystemCallError } from "../ffi/libc.ts";
import {
  AT_SYMLINK_NOFOLLOW,
  look,
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
} from "../files/walk_tree.ts";

/** The project id of one file: an attribute of its inode on ext4 and xfs. @see FS_IOC_FSSETXATTR in linux/fs.h */

/** _IOR('X', 31, struct fsxattr), _IOW('X', 32, struct fsxattr): flags, extent size, extents, project id, CoW extent size, 8 bytes of padding. */
const FS_IOC_FSGETXATTR = 0x801c581f, FS_IOC_FSSETXATTR = 0x401c5820;
const ioctlBytes = 28, ioctlIdOffset = 12;
/** struct file_attr: flags (64 bits), extent size, extents, project id, CoW extent size. */
const attrBytes = 24, attrIdOffset = 16;
const FS_XFLAG_PROJINHERIT = 0x200;
const O_NONBLOCK = 0x800;
const ENOENT = 2, ENOTDIR = 20, ENOTTY = 25, ENOSYS = 38, EOPNOTSUPP = 95;

export interface Project {
  readonly id: number;
  /** Whether new entries of the directory inherit its id. */
  readonly inherits: boolean;
}

const none: Project = { id: 0, inherits: false };
const fsxattr = new Uint8Array(ioctlBytes), fsxattrView = new DataView(fsxattr.buffer);
const fileAttr = new Uint8Array(attrBytes), fileAttrView = new DataView(fileAttr.buffer);
/** Whether this kernel has file_setattr(2), which needs no open file; unknown until the first try. */
let hasFileSetattr: boolean | undefined;

/** @param fd Open for reading, not O_PATH. @throws {SystemCallError} ENOTTY where the filesystem has no such attributes. */
export function projectOf(fd: number): Project {
  check("read a project id", libc.ioctl(fd, FS_IOC_FSGETXATTR, fsxattr));
  return {
    id: fsxattrView.getUint32(ioctlIdOffset, true),
    inherits: (fsxattrView.getUint32(0, true) & FS_XFLAG_PROJINHERIT) !== 0,
  };
}

/** Writes only if something differs. @param fd As above. @throws {SystemCallError} EOPNOTSUPP on ext4 without the feature "project". */
export function setProject(fd: number, { id, inherits }: Project): void {
  const before = projectOf(fd); // the other attributes stay
  if (before.id === id && before.inherits === inherits) return;
  const flags = fsxattrView.getUint32(0, true);
  fsxattrView.setUint32(0, (inherits ? flags | FS_XFLAG_PROJINHERIT : flags & ~FS_XFLAG_PROJINHERIT) >>> 0, true);
  fsxattrView.setUint32(ioctlIdOffset, id, true);
  check("set a project id", libc.ioctl(fd, FS_IOC_FSSETXATTR, fsxattr));
}

/** Sets the id of an entry of a hostile tree. Symlinks, devices and the like get it only on kernels with file_setattr(2) (they take no space).
 * @param mode The entry's mode as last seen. */
export function setProjectAt(directory: number, name: Uint8Array, mode: number, id: number): void {
  const kind = mode & S_IFMT;
  if (hasFileSetattr !== false && setByName(directory, name, { id, inherits: kind === S_IFDIR })) return;
  if (kind !== S_IFDIR && kind !== S_IFREG) return;
  // The entry may have been replaced: O_PATH does not open the file itself, which is opened only if it is a harmless type.
  const named = Number(libc.openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0));
  if (named < 0) {
    const failed = errno();
    if (failed === ENOENT) return; // deleted meanwhile
    throw new SystemCallError("open a file", failed);
  }
  try {
    const fd = openNamed(named);
    if (fd === undefined) return;
    try {
      setProject(fd, { id, inherits: kind === S_IFDIR });
    } finally {
      libc.close(fd);
    }
  } finally {
    libc.close(named);
  }
}

/** @returns Whether nothing is left to do; false without file_setattr(2) in the kernel, or if the filesystem does not support it. */
function setByName(directory: number, name: Uint8Array, project: Project): boolean {
  const call = (which: "file_getattr" | "file_setattr"): number =>
    Number(libc[which](directory, name, fileAttr, attrBytes, AT_SYMLINK_NOFOLLOW)) < 0 ? errno() : 0;
  const failed = call("file_getattr");
  if (failed === ENOSYS) {
    hasFileSetattr = false;
    return false;
  }
  hasFileSetattr = true;
  if (failed === ENOENT) return true;
  if (failed === EOPNOTSUPP || failed === ENOTTY) return false;
  if (failed !== 0) throw new SystemCallError("read a project id", failed);
  const flags = fileAttrView.getBigUint64(0, true);
  const next = project.inherits ? flags | BigInt(FS_XFLAG_PROJINHERIT) : flags & ~BigInt(FS_XFLAG_PROJINHERIT);
  if (fileAttrView.getUint32(attrIdOffset, true) === project.id && flags === next) return true;
  fileAttrView.setBigUint64(0, next, true);
  fileAttrView.setUint32(attrIdOffset, project.id, true);
  const refused = call("file_setattr");
  if (refused === 0 || refused === ENOENT) return true;
  if (refused === EOPNOTSUPP || refused === ENOTTY) return false;
  throw new SystemCallError("set a project id", refused);
}

/** Opens a regular file or directory by its O_PATH descriptor; undefined when it is neither. */
function openNamed(named: number): number | undefined {
  const path = cString(`/proc/self/fd/${named}`);
  const kind = look(named).mode & S_IFMT;
  if (kind !== S_IFDIR && kind !== S_IFREG) return undefined;
  return check("open a file", libc.open(path, O_NONBLOCK | O_CLOEXEC, 0));
}

/** Runs `work` with a descriptor of a directory. @returns undefined when there is no such directory. */
export function withDirectory<T>(directory: string, work: (fd: number) => T): T | undefined {
  const fd = Number(libc.open(cString(directory), O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0));
  if (fd < 0) {
    const failed = errno();
    if (failed === ENOENT || failed === ENOTDIR) return undefined;
    throw new SystemCallError(`open "${directory}"`, failed);
  }
  try {
    return work(fd);
  } finally {
    libc.close(fd);
  }
}

/** @returns The project of a directory; no project where the filesystem does not support them. */
export function projectAt(fd: number): Project {
  try {
    return projectOf(fd);
  } catch (error) {
    if (error instanceof SystemCallError && (error.errno === ENOTTY || error.errno === EOPNOTSUPP)) return none;
    throw error;
  }
}
