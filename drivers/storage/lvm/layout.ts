import { createHash } from "node:crypto";
import { isAbsolute } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import type { Pool, Volume, VolumeType } from "../driver.ts";
import { describe } from "../layout.ts";

/** How volumes are named in a volume group; LXD 5.0's layout, so that data can move between the two. LVM names know no slash, so LXD writes
 * a name's "-" as "--" and puts "-" between volume and snapshot: `custom_default_my--vol-s0`. */

const typePrefixes: Record<VolumeType, string> = { container: "containers", custom: "custom", image: "images" };
const typeOfPrefix = new Map(Object.entries(typePrefixes).map(([type, prefix]) => [prefix, type as VolumeType]));

/** Begins the tag on every group that a pool is in, and on a thin pool that it made. */
export const tagPrefix = "lido_pool";

/** The tag of one pool, by its place on the host: what another daemon made has another, though its names are the same. */
export function tagOf({ root }: Pick<Pool, "root">): string {
  return `${tagPrefix}_${createHash("sha256").update(root).digest("hex").slice(0, 12)}`;
}

export const thinPoolDefault = "LXDThinPool";

/** What device-mapper gives a name: group, "-" and volume, with their own hyphens doubled. @see linux/dm-ioctl.h, DM_NAME_LEN */
const deviceNameMax = 127;
/** Parts of names that LVM keeps for itself. @see lvm(8), VALID NAMES */
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

/** @throws {LidoError} bad_request for a name that LVM cannot have. */
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

/** The inverse of `logicalName`; undefined for what is not ours. */
export function volumeOf(name: string): Volume | undefined {
  const separator = name.indexOf("_");
  const type = typeOfPrefix.get(name.slice(0, separator));
  if (separator < 0 || !type) return undefined;
  // A single hyphen parts volume and snapshot; pairs are hyphens of a name. No name begins with a hyphen, so pairs are taken from the left.
  const parts = name.slice(separator + 1).replaceAll("--", "\0").split("-").map((part) => part.replaceAll("\0", "-"));
  const [volumeName, snapshot, more] = parts;
  if (!volumeName || more !== undefined || snapshot === "") return undefined;
  return snapshot === undefined ? { type, name: volumeName } : { type, name: volumeName, snapshot };
}

/** A volume that is only there while its parent is restored: "new" is what it will be, "old" what it was. */
export function temporaryName(name: string, purpose: "new" | "old"): string {
  return `${purpose}_${name}`;
}

/** @returns The name that a temporary one stands beside; undefined for others. */
export function parentOfTemporary(name: string): string | undefined {
  const parent = /^(?:new|old)_(.*)$/.exec(name)?.[1];
  return parent !== undefined && volumeOf(parent) ? parent : undefined;
}

/** A volume of a pool, or what stands beside one while it is restored. */
export function isOurs(name: string): boolean {
  return volumeOf(name) !== undefined || parentOfTemporary(name) !== undefined;
}

/** Whether a pool is in a group that was there before. */
export function isExisting({ config, diskFile }: Pool): boolean {
  const source = config.source ?? diskFile;
  return source !== diskFile && !isAbsolute(source);
}

/** In /dev/mapper. */
export function deviceName(group: string, name: string): string {
  return `${escape(group)}-${escape(name)}`;
}

/** As mountinfo names a mount's source. */
export function mapperPath(group: string, name: string): string {
  return `/dev/mapper/${deviceName(group, name)}`;
}

export function devicePath(group: string, name: string): string {
  return `/dev/${group}/${name}`;
}

/** As LVM rounds: up to whole extents. */
export function extents(sizeBytes: bigint, extentBytes: bigint): bigint {
  return (sizeBytes + extentBytes - 1n) / extentBytes * extentBytes;
}
