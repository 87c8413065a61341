import { createHash } from "node:crypto";
import { isAbsolute } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import type { Pool, Volume, VolumeType } from "../driver.ts";
import { describe } from "../layout.ts";

/** How volumes are named in a volume group: LXD 5.0's layout, so that data can move between the two. LVM names cannot contain a slash, so LXD writes
 * a name's "-" as "--" and puts "-" between volume and snapshot: `custom_default_my--vol-s0`. */

const typePrefixes: Record<VolumeType, string> = { container: "containers", custom: "custom", image: "images" };
const typeOfPrefix = new Map(Object.entries(typePrefixes).map(([type, prefix]) => [prefix, type as VolumeType]));

/** Prefix of the tag on every group that a pool is in, and on a thin pool that it made. */
export const tagPrefix = "lido_pool";

/** The tag of one pool, from its place on the host: another daemon's pool has another tag, even if its name is the same. */
export function tagOf({ root }: Pick<Pool, "root">): string {
  return `${tagPrefix}_${createHash("sha256").update(root).digest("hex").slice(0, 12)}`;
}

export const thinPoolDefault = "LXDThinPool";

/** Limit of a device-mapper name: group, "-" and volume, with their own hyphens doubled. @see linux/dm-ioctl.h, DM_NAME_LEN */
const deviceNameMax = 127;
/** Parts of names that LVM reserves. @see lvm(8), VALID NAMES */
const reserved = /_(cdata|cmeta|corig|imeta|mlog|mimage|pmspare|rimage|rmeta|tdata|tmeta|vdata|vorigin|wcorig)/;

export function groupName(pool: Pool): string {
  return pool.config["lvm.vg_name"] || pool.name;
}

/** @returns undefined when the pool's volumes are classic ones. */
export function thinPoolName(pool: Pool): string | undefined {
  if (/^(false|0|no|off)$/i.test(pool.config["lvm.use_thinpool"] ?? "")) return undefined;
  return pool.config["lvm.thinpool_name"] || thinPoolDefault;
}

const escape = (text: string) => text.replaceAll("-", "--");

/** @throws {LidoError} bad_request for a name that LVM does not allow. */
export function logicalName(group: string, volume: Volume): string {
  const snapshot = volume.snapshot === undefined ? "" : `-${escape(volume.snapshot)}`;
  const name = `${typePrefixes[volume.type]}_${escape(volume.name)}${snapshot}`;
  const refuse = (why: string) => {
    throw new LidoError("bad_request", `Invalid name for ${describe(volume)} on LVM: ${why}`);
  };
  if (!/^[\w.+-]+$/.test(name)) refuse("letters, digits and . _ - + are allowed");
  if (reserved.test(name)) refuse(`"${reserved.exec(name)![0]}" is reserved`);
  const { length } = deviceName(group, temporaryName(name, "old"));
  if (length > deviceNameMax) {
    refuse(`it is too long by ${length - deviceNameMax} characters (a hyphen counts four times)`);
  }
  return name;
}

/** The inverse of `logicalName`; undefined for other names. */
export function volumeOf(name: string): Volume | undefined {
  const separator = name.indexOf("_");
  const type = typeOfPrefix.get(name.slice(0, separator));
  if (separator < 0 || !type) return undefined;
  // A single hyphen separates volume and snapshot; a pair is a hyphen of a name. No name begins with a hyphen, so pairs are matched from the left.
  const parts = name.slice(separator + 1).replaceAll("--", "\0").split("-").map((part) => part.replaceAll("\0", "-"));
  const [volumeName, snapshot, more] = parts;
  if (!volumeName || more !== undefined || snapshot === "") return undefined;
  return snapshot === undefined ? { type, name: volumeName } : { type, name: volumeName, snapshot };
}

/** Name of a volume that exists only while its parent is restored: "new" has the new content, "old" the previous one. */
export function temporaryName(name: string, purpose: "new" | "old"): string {
  return `${purpose}_${name}`;
}

/** @returns The parent of a temporary name; undefined for others. */
export function parentOfTemporary(name: string): string | undefined {
  const parent = /^(?:new|old)_(.*)$/.exec(name)?.[1];
  return parent !== undefined && volumeOf(parent) ? parent : undefined;
}

/** Whether it is the name of a pool's volume, or a temporary one of a restore. */
export function isOurs(name: string): boolean {
  return volumeOf(name) !== undefined || parentOfTemporary(name) !== undefined;
}

/** Whether a pool is in a group that existed before. */
export function isExisting({ config, diskFile }: Pool): boolean {
  const source = config.source ?? diskFile;
  return source !== diskFile && !isAbsolute(source);
}

/** Name in /dev/mapper. */
export function deviceName(group: string, name: string): string {
  return `${escape(group)}-${escape(name)}`;
}

/** A mount's source as in mountinfo. */
export function mapperPath(group: string, name: string): string {
  return `/dev/mapper/${deviceName(group, name)}`;
}

export function devicePath(group: string, name: string): string {
  return `/dev/${group}/${name}`;
}

/** Rounds up to whole extents, as LVM does. */
export function extents(sizeBytes: bigint, extentBytes: bigint): bigint {
  return (sizeBytes + extentBytes - 1n) / extentBytes * extentBytes;
}
