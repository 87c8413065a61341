import { lstat, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { LidoError, messageOf } from "../../../api/errors.ts";
import { openBeneathFd } from "../../host/files/beneath.ts";
import {
  childrenOf,
  directoryIn,
  isReadonly,
  openInode,
  openSubvolume,
  removeEmpty,
  setReadonly,
  subvolumeIdOf,
} from "../../host/btrfs/ioctl.ts";
import { closeFd } from "../../host/process/process.ts";
import type { BtrfsTool } from "./tool.ts";

/** Subvolumes nested in a volume or a snapshot, as optimized backups have them: each is a stream of its own. */

const O_PATH = 0x200000, O_DIRECTORY = 0x10000;

export interface NestedPath {
  /** Path in the volume, without a leading slash. */
  readonly path: string;
  readonly readonly: boolean;
  /** Whether no other nested subvolume contains it. */
  readonly isOutermost: boolean;
}

/** @param root Of a snapshot, which does not change. @returns The subvolumes in it, the outer ones first.
 * @throws {LidoError} bad_request for a path that is not valid text or too long. */
export function nestedIn(root: string): NestedPath[] {
  const fd = openSubvolume(root);
  try {
    const found: NestedPath[] = [];
    const waiting = [{ id: subvolumeIdOf(fd), path: "" }];
    for (let parent = waiting.shift(); parent; parent = waiting.shift()) {
      for (const { id, directoryInode, name } of childrenOf(fd, parent.id)) {
        const path = parent.path + textOf(directoryIn(fd, parent.id, directoryInode)) + textOf(name);
        found.push({ path, readonly: withInode(fd, id, isReadonly), isOutermost: parent.path === "" });
        waiting.push({ id, path: `${path}/` });
      }
    }
    return found;
  } catch (error) {
    if (error instanceof LidoError) throw error;
    throw new LidoError("bad_request", `Cannot list the subvolumes in a volume: ${messageOf(error)}`);
  } finally {
    closeFd(fd);
  }
}

/** Read-only snapshots of the subvolumes nested in several states of a volume, ready to be sent, all in one temporary directory. */
export class NestedCopies {
  readonly #directory: string;
  readonly #states: ReadonlyMap<string, string>[] = [];
  #count = 0;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Adds the next state. @returns The subvolumes in it. */
  async add(tool: BtrfsTool, root: string): Promise<NestedPath[]> {
    const nested = nestedIn(root);
    const copies = new Map<string, string>();
    this.#states.push(copies);
    if (nested.length > 0) await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    for (const { path } of nested) {
      const copy = join(this.#directory, String(this.#count++));
      await tool.snapshot(join(root, path), copy, { readonly: true });
      copies.set(path, copy);
    }
    return nested;
  }

  /** @returns The copy of a subvolume in a state, and its copy in the state before, if there is one. */
  of(state: number, path: string): { copy: string; parent: string | undefined } {
    return { copy: this.#states[state]!.get(path)!, parent: this.#states[state - 1]?.get(path) };
  }
}

/** Removes the empty directory at a nested subvolume's place in a foreign volume; no symbolic link is followed. @returns The place's path.
 * @throws {LidoError} bad_request when something else is there, or the parent directory is missing. */
export async function makeRoom(root: string, path: string): Promise<string> {
  const target = join(root, path);
  const top = openSubvolume(root);
  try {
    setReadonly(top, false);
    const parent = openBeneathFd(top, dirname(path), { flags: O_DIRECTORY });
    try {
      removeEmpty(parent, nameOf(path));
    } finally {
      closeFd(parent);
    }
  } catch (error) {
    throw new LidoError("bad_request", `Invalid backup: no place for subvolume "/${path}": ${messageOf(error)}`);
  } finally {
    closeFd(top);
  }
  if (await lstat(target).then(() => true, () => false)) {
    throw new LidoError("bad_request", `Invalid backup: subvolume "/${path}" is in the place of something else`);
  }
  return target;
}

/** Removes the empty directories that a snapshot has in place of nested subvolumes. @param nested Those in the snapshot's source. */
export function removePlaceholders(root: string, nested: readonly NestedPath[]): void {
  const top = openSubvolume(root);
  try {
    for (const { path } of nested.filter(({ isOutermost }) => isOutermost)) {
      const parent = openBeneathFd(top, dirname(path), { flags: O_DIRECTORY });
      try {
        removeEmpty(parent, nameOf(path));
      } finally {
        closeFd(parent);
      }
    }
  } finally {
    closeFd(top);
  }
}

/** Makes subvolumes of a foreign volume read-only. @param paths In the volume; "" for the volume itself. */
export function sealPaths(root: string, paths: readonly string[]): void {
  const top = openSubvolume(root);
  try {
    for (const path of paths) {
      const fd = openBeneathFd(top, path || ".", { flags: O_DIRECTORY });
      try {
        setReadonly(fd, true);
      } finally {
        closeFd(fd);
      }
    }
  } finally {
    closeFd(top);
  }
}

/** @returns A path that is sure to lead to a subvolume in the volume. @throws {SystemCallError} */
export function checkedPath(root: string, path: string): string {
  const top = openSubvolume(root);
  try {
    closeFd(openBeneathFd(top, path, { flags: O_PATH | O_DIRECTORY }));
    return join(root, path);
  } finally {
    closeFd(top);
  }
}

function withInode<T>(fd: number, id: bigint, work: (fd: number) => T): T {
  const opened = openInode(fd, id);
  try {
    return work(opened);
  } finally {
    closeFd(opened);
  }
}

const nameOf = (path: string) => new TextEncoder().encode(path.slice(path.lastIndexOf("/") + 1));

function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new LidoError("bad_request", "Cannot make an optimized backup: a subvolume has a path that is no text");
  }
}
