import type { Pool, Volume, VolumeType } from "../driver.ts";
import { temporaryPrefix, typeDirectory } from "../layout.ts";

/** How volumes are named in ZFS: LXD 5.0's layout, so that data can move between the two. */

const types: readonly VolumeType[] = ["container", "custom", "image"];
const typeOfDirectory = new Map(types.map((type) => [typeDirectory(type), type]));

/** Datasets of every pool, parents first. `virtual-machines` is LXD's, who would make it; lido keeps nothing there. */
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
  /** What the volume or snapshot is called. */
  of: (top: string, volume: Volume): string =>
    volume.snapshot === undefined ? names.dataset(top, volume) : names.snapshot(top, volume),
  /** Where a volume goes that others were cloned from. @param id Unlike any before. */
  kept: (top: string, volume: Volume, id: string): string => `${top}/deleted/${typeDirectory(volume.type)}/${id}`,
  /** The dataset that becomes the volume when it is restored; beside it. */
  restored: (top: string, volume: Volume): string =>
    `${top}/${typeDirectory(volume.type)}/${temporaryPrefix}restore-${escape(volume.name)}`,
  /** The volume that such a dataset is to become. */
  restoredVolume: (top: string, name: string): Volume => ({
    type: typeOfDirectory.get(name.slice(top.length + 1).split("/", 1)[0]!)!,
    name: names.nameOf(top, name),
  }),
  isRestored: (top: string, name: string): boolean =>
    name.startsWith(`${top}/`) && name.slice(top.length + 1).includes(`/${temporaryPrefix}restore-`),
  /** Name on disk of the volume that a dataset or snapshot is of, or is to become. */
  nameOf: (top: string, name: string): string =>
    unescape(names.datasetOf(name.slice(top.length + 1)).split("/").at(-1)!.replace(`${temporaryPrefix}restore-`, "")),
  datasetOf: (snapshot: string): string => snapshot.split("@", 1)[0]!,
  isSnapshot: (name: string): boolean => name.includes("@"),
  /** Of a copy: it goes with its last clone. */
  isCopySnapshot: (name: string): boolean => /@copy-[0-9a-f-]+$/.test(name),
  /** Of a snapshot that was deleted while it had clones: likewise. */
  isDeletedSnapshot: (name: string): boolean => /@deleted-[0-9a-f-]+$/.test(name),
  /** Of a transfer: it goes with its end. */
  isTransferSnapshot: (name: string): boolean =>
    name.endsWith(transferSuffix) || name.includes(`@snapshot-${temporaryPrefix}`),
  /** Whether `name` is a dataset that is kept only for its clones. */
  isKept: (top: string, name: string): boolean =>
    /^deleted\/[a-z-]+\/[^/@]+$/.test(name.slice(top.length + 1)) && name.startsWith(`${top}/`),
  /** Whether a storage pool made it, or what is in it made it: all but what users have put beside. */
  isOurs: (top: string, name: string): boolean => {
    if (name === top) return true;
    if (!name.startsWith(`${top}/`)) return false;
    const [directory, ...deeper] = name.slice(top.length + 1).split(/[/@]/) as [string, ...string[]];
    return initialDatasets.includes(directory) && !(directory === "virtual-machines" && deeper.length > 0);
  },
  /** @returns The volume or snapshot that `name` is, or undefined for what is none (the top, `deleted/`, what operations leave for a while). */
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

/** What a received volume is called until it stands on its own. */
export const transferSuffix = "@lido-transfer";

/** ZFS has no "+" and "@" in its names, lido has; and ZFS has spaces, lido none. */
function escape(name: string): string {
  return name.replace(/[+@]/g, (character) => ` ${character.charCodeAt(0).toString(16)}`);
}

function unescape(name: string): string {
  return name.replace(/ (2b|40)/g, (_, code: string) => String.fromCharCode(parseInt(code, 16)));
}
