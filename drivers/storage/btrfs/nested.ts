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

/** Subvolumes within a volume or a snapshot, as optimized backups have them: each is a stream of its own. */

const O_PATH = 0x200000, O_DIRECTORY = 0x10000;

export interface NestedPath {
  /** In the volume, without a slash before it. */
  readonly path: string;
  readonly readonly: boolean;
  /** Whether it is within no other one of the volume's. */
  readonly isOutermost: boolean;
}

/** @param root Of a snapshot, which nobody changes. @returns The subvolumes in it, the outer ones first.
 * @throws {LidoError} bad_request for a path that is no text or too long. */
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

/** Read-only snapshots of the subvolumes in several states of a volume, which can be sent: side by side in a directory of ours. */
export class NestedCopies {
  readonly #directory: string;
  readonly #states: ReadonlyMap<string, string>[] = [];
  #count = 0;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Adds the next state. @returns What is in it. */
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

  /** @returns The copy of a subvolume in a state, and that of the state before, if it was there. */
  of(state: number, path: string): { copy: string; parent: string | undefined } {
    return { copy: this.#states[state]!.get(path)!, parent: this.#states[state - 1]?.get(path) };
  }
}

/** Makes room for a subvolume in a volume that came from elsewhere: no symbolic link is followed. @returns Where it is to be.
 * @throws {LidoError} bad_request when something is there, or its directory is not. */
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

/** Removes the empty directories that a snapshot has in the place of subvolumes. @param nested Those of what it is a snapshot of. */
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

/** Makes subvolumes of a volume that came from elsewhere read-only. @param paths In it; "" for itself. */
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

/** @returns A path that leads to a subvolume in a volume, and nowhere else. @throws {SystemCallError} */
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
