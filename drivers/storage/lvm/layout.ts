import type { Pool, Volume, VolumeType } from "../driver.ts";

/** How volumes are named in a volume group and below the pool's root; LXD 5.0's layout. LVM names know no slash and a hyphen is doubled
 * in device-mapper, so LXD writes "-" as "--" and puts "-" between volume and snapshot: `custom_default_my--vol-s0`. */

const typePrefixes: Record<VolumeType, string> = { container: "containers", custom: "custom", image: "images" };
const typeOfPrefix = new Map(Object.entries(typePrefixes).map(([type, prefix]) => [prefix, type as VolumeType]));

export const tag = "lido_pool";

export function groupName(pool: Pool): string {
  return pool.config["lvm.vg_name"] || pool.name;
}

export function thinPoolName(pool: Pool): string | undefined {
  return pool.config["lvm.use_thinpool"] === "false" ? undefined : pool.config["lvm.thinpool_name"] || "LXDThinPool";
}

export function logicalName(volume: Volume): string {
  const escape = (text: string) => text.replaceAll("-", "--");
  const snapshot = volume.snapshot === undefined ? "" : `-${escape(volume.snapshot)}`;
  return `${typePrefixes[volume.type]}_${escape(volume.name)}${snapshot}`;
}

/** The inverse of `logicalName`; undefined for what is not ours. */
export function volumeOf(name: string): Volume | undefined {
  const separator = name.indexOf("_");
  const type = typeOfPrefix.get(name.slice(0, separator));
  if (separator < 0 || !type) return undefined;
  // A single hyphen parts volume and snapshot; pairs are hyphens of a name.
  const parts = name.slice(separator + 1).replaceAll("--", "\0").split("-").map((part) => part.replaceAll("\0", "-"));
  const [volumeName, snapshot, more] = parts;
  if (!volumeName || more !== undefined) return undefined;
  return snapshot === undefined ? { type, name: volumeName } : { type, name: volumeName, snapshot };
}

/** Relative to the pool's root. */
export function directoryOf(volume: Volume): string {
  return volume.snapshot === undefined
    ? `${typePrefixes[volume.type]}/${volume.name}`
    : `${snapshotDirectoryOf(volume)}/${volume.snapshot}`;
}

export function snapshotDirectoryOf(volume: Volume): string {
  return `${typePrefixes[volume.type]}-snapshots/${volume.name}`;
}
