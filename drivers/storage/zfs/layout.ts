import type { Pool, Volume, VolumeType } from "../driver.ts";
import { temporaryPrefix, typeDirectory } from "../layout.ts";

/** How volumes are named in ZFS: LXD 5.0's layout, so that data can move between the two. */

const types: readonly VolumeType[] = ["container", "custom", "image"];
const typeOfDirectory = new Map(types.map((type) => [typeDirectory(type), type]));

/** Datasets of every pool, parents first. LXD would make `virtual-machines`; lido keeps nothing there. */
export const initialDatasets: readonly string[] = (() => {
  const directories = [...typeOfDirectory.keys(), "virtual-machines"];
  return [...directories, "deleted", ...directories.map((directory) => `deleted/${directory}`)];
})();

export const names = {
  top: (pool: Pool): string => pool.config["zfs.pool_name"] || pool.name,
  zpool: (dataset: string): string => dataset.split(/[/@]/, 1)[0]!,
  dataset: (top: string, volume: Volume): string => `${top}/${typeDirectory(volume.type)}/${escape(volume.name)}`,
  snapshot: (top: string, volume: Volume): string =>
    `${names.dataset(top, volume)}@snapshot-${escape(volume.snapshot!)}`,
  /** The dataset or snapshot of a volume. */
  of: (top: string, volume: Volume): string =>
    volume.snapshot === undefined ? names.dataset(top, volume) : names.snapshot(top, volume),
  /** Where a deleted volume with clones is kept. @param id A new one for each. */
  kept: (top: string, volume: Volume, id: string): string => `${top}/deleted/${typeDirectory(volume.type)}/${id}`,
  /** The temporary dataset that becomes the volume when it is restored. */
  restored: (top: string, volume: Volume): string =>
    `${top}/${typeDirectory(volume.type)}/${temporaryPrefix}restore-${escape(volume.name)}`,
  /** The volume that a temporary dataset of a restore will become. */
  restoredVolume: (top: string, name: string): Volume => ({
    type: typeOfDirectory.get(name.slice(top.length + 1).split("/", 1)[0]!)!,
    name: names.nameOf(top, name),
  }),
  isRestored: (top: string, name: string): boolean =>
    name.startsWith(`${top}/`) && name.slice(top.length + 1).includes(`/${temporaryPrefix}restore-`),
  /** Name on disk of a dataset's or snapshot's volume, or of the volume it will become. */
  nameOf: (top: string, name: string): string =>
    unescape(names.datasetOf(name.slice(top.length + 1)).split("/").at(-1)!.replace(`${temporaryPrefix}restore-`, "")),
  datasetOf: (snapshot: string): string => snapshot.split("@", 1)[0]!,
  isSnapshot: (name: string): boolean => name.includes("@"),
  /** Snapshot of a copy: destroyed with its last clone. */
  isCopySnapshot: (name: string): boolean => /@copy-[0-9a-f-]+$/.test(name),
  /** Snapshot that was deleted while it had clones: destroyed with its last clone. */
  isDeletedSnapshot: (name: string): boolean => /@deleted-[0-9a-f-]+$/.test(name),
  /** Snapshot of a transfer: destroyed when the transfer ends. */
  isTransferSnapshot: (name: string): boolean =>
    name.endsWith(transferSuffix) || name.includes(`@snapshot-${temporaryPrefix}`),
  /** Whether `name` is a dataset that is kept only for its clones. */
  isKept: (top: string, name: string): boolean =>
    /^deleted\/[a-z-]+\/[^/@]+$/.test(name.slice(top.length + 1)) && name.startsWith(`${top}/`),
  /** Whether `name` is part of the storage pool's layout: everything but what users have added to the ZFS pool. */
  isOurs: (top: string, name: string): boolean => {
    if (name === top) return true;
    if (!name.startsWith(`${top}/`)) return false;
    const [directory, ...deeper] = name.slice(top.length + 1).split(/[/@]/) as [string, ...string[]];
    return initialDatasets.includes(directory) && !(directory === "virtual-machines" && deeper.length > 0);
  },
  /** @returns The volume or snapshot of a name; undefined for others (the top, `deleted/`, temporary datasets and snapshots). */
  volume: (top: string, name: string): Volume | undefined => {
    if (!name.startsWith(`${top}/`)) return undefined;
    const [dataset, at] = name.slice(top.length + 1).split("@") as [string, string?];
    const [directory, volumeName, deeper] = dataset.split("/");
    const type = typeOfDirectory.get(directory!);
    if (!type || !volumeName || deeper !== undefined || volumeName.startsWith(temporaryPrefix)) return undefined;
    const volume = { type, name: unescape(volumeName) };
    if (at === undefined) return volume;
    const prefix = "snapshot-";
    if (!at.startsWith(prefix) || at.startsWith(prefix + temporaryPrefix)) return undefined;
    return { ...volume, snapshot: unescape(at.slice(prefix.length)) };
  },
};

/** Suffix of a received volume's snapshot until the transfer is complete. */
export const transferSuffix = "@lido-transfer";

/** ZFS does not allow "+" and "@" in names, lido does; ZFS allows spaces, lido does not: an escape begins with a space. */
function escape(name: string): string {
  return name.replace(/[+@]/g, (character) => ` ${character.charCodeAt(0).toString(16)}`);
}

function unescape(name: string): string {
  return name.replace(/ (2b|40)/g, (_, code: string) => String.fromCharCode(parseInt(code, 16)));
}
