import { chmod, lstat, mkdir, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { LidoError } from "../../api/errors.ts";
import { showUnequalBytes } from "../../api/size.ts";
import type { Volume, VolumeType } from "./driver.ts";

/** Places of volumes below a pool's root: LXD 5.0's layout, so that data can move between the two. */

const directories: Readonly<Record<VolumeType, string>> = {
  container: "containers",
  custom: "custom",
  image: "images",
};
/** Mode of every directory that holds volumes. A local user who could reach a container's tree could execute its setuid files as the host's
 * root, where owners on disk are not shifted. The runtime copies the mounts as the host's root, so containers need not pass here. */
const directoryMode = 0o700;
const types = Object.keys(directories) as VolumeType[];
/** Modes of volumes' roots, as LXD has them. A container sees a custom volume's root; those of others hold a `rootfs`, which only root enters. */
const volumeModes: Readonly<Record<VolumeType, number>> = { container: 0o100, custom: 0o711, image: 0o100 };
/** Prefix of temporary names, which exist only while an operation runs; the next opening of the pool deletes what is left. */
export const temporaryPrefix = ".lido-";

/** Directory in a pool's root where the server keeps its records. Drivers do not look into it; a driver whose pool is not the tree at its
 * root mounts something of the pool there when it opens it. */
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

/** The volume's place while its new content is made (restore, receive), in the same directory as the volume. */
export function temporaryOf(volume: Volume, purpose: string): string {
  return join(directories[volume.type], `${temporaryPrefix}${purpose}-${volume.name}`);
}

/** @param leftover As `listTemporaries` and `listEmpty` return it. @returns Name on disk of its volume. */
export function ownerOf(leftover: string): string {
  const [, owner = ""] = /\/(?:\.lido-[a-z]+-)?(.*)$/.exec(leftover) ?? [];
  return owner;
}

/** @returns The default mode of a new volume's root. */
export function volumeModeOf({ type }: Volume): number {
  return volumeModes[type];
}

/** Makes the directories of volumes, and corrects the modes of existing ones: earlier versions, and LXD, let others in. */
export async function makeDirectories(root: string): Promise<void> {
  for (const type of types) {
    for (const directory of [directories[type], `${directories[type]}-snapshots`]) {
      if (directory === "images-snapshots") continue;
      await mkdir(join(root, directory), { recursive: true, mode: directoryMode });
      await chmod(join(root, directory), directoryMode); // mkdir's mode is reduced by the umask
    }
  }
}

/** Corrects the modes of the roots of containers and images below `root`, which another version of lido, an archive or a stream may have set.
 * A root that is read-only, or on a full filesystem, keeps its mode: the directories above it let only root in. */
export async function repairModes(root: string): Promise<void> {
  for (const volume of await listDirectories(root)) {
    await repairMode(join(root, directoryOf(volume)), volume);
  }
}

/** Corrects the mode of one volume's root, at `path`. A custom volume's mode is its owner's choice. */
export async function repairMode(path: string, volume: Volume): Promise<void> {
  if (volume.type === "custom") return;
  const mode = volumeModeOf(volume), info = await lstat(path);
  if (!info.isDirectory() || (info.mode & 0o7777) === mode) return;
  await chmod(path, mode).catch((error: NodeJS.ErrnoException) => {
    if (!["EROFS", "ENOSPC", "EDQUOT"].includes(error.code ?? "")) throw error;
  });
}

/** Checks that `root` is the pool that was made: a mount point without its mount, or with another one, lacks our directories.
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

/** @returns Temporary names that interrupted operations left, relative to `root`. */
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

/** @returns Snapshot directories without any snapshot, relative to `root`. */
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

/** @throws {LidoError} When the volume already uses more than `sizeBytes`. */
export function refuseBelowUse(volume: Volume, sizeBytes: bigint, usedBytes: bigint): void {
  if (usedBytes <= sizeBytes) return;
  const [limit, used] = showUnequalBytes(sizeBytes, usedBytes);
  throw new LidoError(
    "bad_request",
    `Cannot limit ${describe(volume)} to ${limit}: it uses ${used} already`,
  );
}

/** A volume's name as users know it: on disk a custom volume's name begins with its project. */
export function fromDisk(volume: Volume): string {
  return volume.type === "custom" ? volume.name.replace(/^default_/, "") : volume.name;
}

/** For messages: `custom volume "v/s0"`. */
export function describe(volume: Volume): string {
  return `${volume.type} volume "${fromDisk(volume)}${volume.snapshot === undefined ? "" : `/${volume.snapshot}`}"`;
}
