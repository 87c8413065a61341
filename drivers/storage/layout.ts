import { chmod, lstat, mkdir, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { LidoError } from "../../api/errors.ts";
import { showUnequalBytes } from "../../api/size.ts";
import type { Volume, VolumeType } from "./driver.ts";

/** Where volumes are below a pool's root: LXD 5.0's layout, so that data can move between the two. */

const directories: Readonly<Record<VolumeType, string>> = {
  container: "containers",
  custom: "custom",
  image: "images",
};
/** Of every directory with volumes: a local user who came to a container's tree could execute its setuid files, as the host's root where owners on disk are
 * not shifted. The runtime takes its copies of the mounts as the host's root, so containers need no way through. */
const directoryMode = 0o700;
const types = Object.keys(directories) as VolumeType[];
/** Of a volume's root. A custom volume's is what the container sees at its mount; those of others hold a `rootfs`, and none but root needs to pass: LXD's. */
const volumeModes: Readonly<Record<VolumeType, number>> = { container: 0o100, custom: 0o711, image: 0o100 };
/** Beginning of the names of what is only there while an operation runs; swept when the pool is opened. */
export const temporaryPrefix = ".lido-";

/** In a pool's root, beside the volumes: what the server keeps there to know them by. No driver looks into it; one whose pool is not the tree at
 * its root mounts something of the pool there when it opens it. */
export const recordsDirectory = ".lido-records";

export function typeDirectory(type: VolumeType): string {
  return directories[type];
}

export function snapshotsDirectory(volume: Volume): string {
  return `${directories[volume.type]}-snapshots/${volume.name}`;
}

/** @returns The volume's place, relative to the pool's root. */
export function directoryOf(volume: Volume): string {
  return volume.snapshot === undefined
    ? `${directories[volume.type]}/${volume.name}`
    : `${snapshotsDirectory(volume)}/${volume.snapshot}`;
}

/** The volume's place while it is being made anew (restore, receive); beside its final one. */
export function temporaryOf(volume: Volume, purpose: string): string {
  return join(directories[volume.type], `${temporaryPrefix}${purpose}-${volume.name}`);
}

/** @param leftover As `listTemporaries` and `listEmpty` tell it. @returns Name on disk of the volume it is of. */
export function ownerOf(leftover: string): string {
  const [, owner = ""] = /\/(?:\.lido-[a-z]+-)?(.*)$/.exec(leftover) ?? [];
  return owner;
}

/** @returns The mode of a new volume's root, unless it is asked for another. */
export function volumeModeOf({ type }: Volume): number {
  return volumeModes[type];
}

/** Makes them, and gives those that are there their modes: earlier versions, and LXD, let others pass. */
export async function makeDirectories(root: string): Promise<void> {
  for (const type of types) {
    for (const directory of [directories[type], `${directories[type]}-snapshots`]) {
      if (directory === "images-snapshots") continue;
      await mkdir(join(root, directory), { recursive: true, mode: directoryMode });
      await chmod(join(root, directory), directoryMode); // mkdir's mode is cut by the umask
    }
  }
}

/** Gives the roots of containers and images that are below `root` the modes of new ones: another version of lido, an archive or a stream gave them theirs.
 * One that is read-only, or on a full filesystem, keeps its own, below directories that nobody passes. */
export async function repairModes(root: string): Promise<void> {
  for (const volume of await listDirectories(root)) {
    await repairMode(join(root, directoryOf(volume)), volume);
  }
}

/** The same for one, at `path`. A custom volume's is its owner's to choose. */
export async function repairMode(path: string, volume: Volume): Promise<void> {
  if (volume.type === "custom") return;
  const mode = volumeModeOf(volume), info = await lstat(path);
  if (!info.isDirectory() || (info.mode & 0o7777) === mode) return;
  await chmod(path, mode).catch((error: NodeJS.ErrnoException) => {
    if (!["EROFS", "ENOSPC", "EDQUOT"].includes(error.code ?? "")) throw error;
  });
}

/** What is opened must be what was made: a directory that something was to be mounted at, or that something else is mounted at, has none of ours.
 * @throws {LidoError} unavailable. */
export async function needDirectories(root: string): Promise<void> {
  const isThere = await stat(join(root, directories.custom)).then((info) => info.isDirectory(), () => false);
  if (isThere) return await makeDirectories(root);
  throw new LidoError("unavailable", `"${root}" does not hold the pool: it has no directory "${directories.custom}"`);
}

/** @returns Every volume and snapshot that has a directory below `root`. */
export async function listDirectories(root: string): Promise<Volume[]> {
  const found: Volume[] = [];
  for (const type of types) {
    for (const name of await names(join(root, directories[type]))) found.push({ type, name });
    for (const name of await names(join(root, `${directories[type]}-snapshots`))) {
      for (const snapshot of await names(join(root, `${directories[type]}-snapshots`, name))) {
        found.push({ type, name, snapshot });
      }
    }
  }
  return found;
}

/** @returns What operations that never ended left half-made, relative to `root`. */
export async function listTemporaries(root: string): Promise<string[]> {
  const found: string[] = [];
  for (const type of types) {
    const entries = await readdir(join(root, directories[type])).catch(() => []);
    found.push(
      ...entries.filter((name) => name.startsWith(temporaryPrefix)).map((name) => join(directories[type], name)),
    );
  }
  return found;
}

/** @returns Places for the snapshots of a volume, without any, relative to `root`. */
export async function listEmpty(root: string): Promise<string[]> {
  const found: string[] = [];
  for (const type of types) {
    for (const name of await names(join(root, `${directories[type]}-snapshots`))) {
      const place = snapshotsDirectory({ type, name });
      if ((await readdir(join(root, place)).catch(() => [""])).length === 0) found.push(place);
    }
  }
  return found;
}

async function names(directory: string): Promise<string[]> {
  const entries = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  return entries.filter((name) => !name.startsWith(temporaryPrefix));
}

/** The refusal of a limit that is passed already. */
export function refuseBelowUse(volume: Volume, sizeBytes: bigint, usedBytes: bigint): void {
  if (usedBytes <= sizeBytes) return;
  const [limit, used] = showUnequalBytes(sizeBytes, usedBytes);
  throw new LidoError(
    "bad_request",
    `Cannot limit ${describe(volume)} to ${limit}: it uses ${used} already`,
  );
}

/** A volume's name as users know it: on disk a custom volume's has its project before it. */
export function fromDisk(volume: Volume): string {
  return volume.type === "custom" ? volume.name.replace(/^default_/, "") : volume.name;
}

/** For messages: `custom volume "v/s0"`. */
export function describe(volume: Volume): string {
  return `${volume.type} volume "${fromDisk(volume)}${volume.snapshot === undefined ? "" : `/${volume.snapshot}`}"`;
}
