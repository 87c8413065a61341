import { shown } from "./tar_fields.ts";
import type { TarEntry } from "./tar_reader.ts";

/** Decides what may be written of an archive that is not trusted. */

/** The kernel's own limits on a path and a part of it, without the NUL at the end. */
const pathMaxBytes = 4095, partMaxBytes = 255;
const xattrNameMaxBytes = 255, xattrMaxBytes = 65_536;

/** An entry that has been checked: its path is canonical, and it has nothing that an archive must not set. */
export interface Member extends
  Pick<
    TarEntry,
    "type" | "sizeBytes" | "mode" | "uid" | "gid" | "mtime" | "device" | "xattrs" | "sparse" | "content"
  > {
  /** Relative, without "." and ".." and empty parts; "" is the top. Byte for byte (`bytesText`), as all text of archives. */
  readonly path: string;
  /** Of a hard link: a path like `path`. Of a symbolic link: its text, which may lead anywhere. */
  readonly target: string;
}

/** @param options.allowAbsolute Whether a leading "/" is dropped, as tar does.
 * @returns The path without "./" and the like; undefined for one that leads out of the archive, or that the kernel does not accept. */
export function cleanPath(name: string, { allowAbsolute = false } = {}): string | undefined {
  if (name.includes("\0") || (name.startsWith("/") && !allowAbsolute)) return undefined;
  // Check the length before splitting: a header may hold megabytes.
  if (name.length > 2 * pathMaxBytes) return undefined;
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.some((part) => part === ".." || part.length > partMaxBytes)) return undefined;
  const path = parts.join("/");
  return path.length > pathMaxBytes ? undefined : path;
}

/** @param refuse Throws; its text follows the entry's name. @param path Where the entry goes, clean. @param target Of a hard link, clean.
 * @returns The entry as it may be written. */
export function memberOf(entry: TarEntry, path: string, target: string, refuse: (why: string) => never): Member {
  const { type, sizeBytes, mode, uid, gid, mtime, device, xattrs, sparse, content } = entry;
  // Overlay filesystems mark a deleted file by device 0, 0, in every tree that Docker used, and a container can make it; others are the host's.
  const isWhiteout = type === "character" && device.major === 0 && device.minor === 0;
  if ((type === "character" || type === "block") && !isWhiteout) refuse("is a device node");
  if (path === "" && type !== "directory") refuse("is in the place of a directory");
  if (type === "symlink") {
    target = entry.linkName;
    if (target === "" || target.includes("\0") || target.length > pathMaxBytes) {
      refuse("is a symbolic link that no system takes");
    }
  }
  const base = { path, target, type, sizeBytes, mode, uid, gid, mtime, device, content };
  return { ...base, xattrs: allowedXattrs(xattrs, refuse), ...(sparse ? { sparse } : {}) };
}

/** Attributes that describe the file itself. Those in which this daemon, or another program of the host's root, keeps state are dropped: an archive
 * must not be able to set them. */
const allowedNames =
  /^(user\..+|system\.posix_acl_(access|default)|security\.(capability|selinux|ima)|trusted\.overlay\..+|btrfs\.compression)$/s;

export const isXattrAllowed = (name: string) => allowedNames.test(name) && !name.includes("\0");

function allowedXattrs(
  xattrs: ReadonlyMap<string, Uint8Array>,
  refuse: (why: string) => never,
): ReadonlyMap<string, Uint8Array> {
  const allowed = new Map<string, Uint8Array>();
  for (const [name, value] of xattrs) {
    if (!isXattrAllowed(name)) continue;
    // No check for "=": in a pax header a name ends with the first one.
    if (name.length > xattrNameMaxBytes || value.length > xattrMaxBytes) {
      refuse(`has an extended attribute that is too large: ${shown(name)}`);
    }
    allowed.set(name, value);
  }
  return allowed;
}
