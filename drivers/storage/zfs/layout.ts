import type { Pool, Volume, VolumeType } from "../driver.ts";

/** How volumes are named in ZFS and below the pool's root; LXD 5.0's layout, so that data can move between the two. */

const typeDirectories: Record<VolumeType, string> = { container: "containers", custom: "custom", image: "images" };
const typeOfDirectory = new Map(
  Object.entries(typeDirectories).map(([type, directory]) => [directory, type as VolumeType]),
);

export const directories = {
  typeOf: (type: VolumeType): string => typeDirectories[type],
  /** Relative to the pool's root. */
  of: (volume: Volume): string =>
    volume.snapshot === undefined
      ? `${typeDirectories[volume.type]}/${volume.name}`
      : `${directories.snapshotsOf(volume)}/${volume.snapshot}`,
  snapshotsOf: (volume: Volume): string => `${typeDirectories[volume.type]}-snapshots/${volume.name}`,
};

export const names = {
  top: (pool: Pool): string => pool.config["zfs.pool_name"] || pool.name,
  zpool: (pool: Pool): string => names.top(pool).split("/")[0]!,
  dataset: (top: string, volume: Volume): string => `${top}/${typeDirectories[volume.type]}/${volume.name}`,
  snapshot: (top: string, volume: Volume): string => `${names.dataset(top, volume)}@snapshot-${volume.snapshot}`,
  isCopySnapshot: (name: string): boolean => /@copy-[0-9a-f-]+$/.test(name),
  isDeletedSnapshot: (name: string): boolean => /@deleted-[0-9a-f-]+$/.test(name),
  /** Whether `name` is a dataset that is kept only for its clones. */
  isKept: (top: string, name: string): boolean =>
    !name.includes("@") &&
    new RegExp(`^deleted/(?:${[...typeOfDirectory.keys()].join("|")})/[^/]+$`).test(name.slice(top.length + 1)),
  /** @returns The volume or snapshot that `name` is, or undefined for what is none (the top, `deleted/`, internal snapshots). */
  volume: (top: string, name: string): Volume | undefined => {
    if (!name.startsWith(`${top}/`)) return undefined;
    const [dataset, at] = name.slice(top.length + 1).split("@") as [string, string?];
    const [directory, volumeName, deeper] = dataset.split("/");
    const type = typeOfDirectory.get(directory!);
    if (!type || !volumeName || deeper !== undefined) return undefined;
    if (at === undefined) return { type, name: volumeName };
    return at.startsWith("snapshot-") ? { type, name: volumeName, snapshot: at.slice("snapshot-".length) } : undefined;
  },
};

/** For messages. */
export function describe(volume: Volume): string {
  return `${volume.type} volume "${volume.name}${volume.snapshot === undefined ? "" : `/${volume.snapshot}`}"`;
}
