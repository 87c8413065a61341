import { constants, lchownSync, mkdirSync } from "node:fs";
import { posix } from "node:path";
import { openBeneath } from "./beneath.ts";
import { libc, SystemCallError } from "../ffi/libc.ts";

const O_PATH = 0x200000;

/** Creates the missing directories on the way to `path` in a hostile tree, 0755. No symlink is followed.
 * @param path A directory's, in the tree. @throws {SystemCallError} ELOOP or ENOTDIR when something else is in the way. */
export function makeDirectoriesBeneath(root: string, path: string, owner: { uid: number; gid: number }): void {
  const parts = posix.normalize(`/${path}`).split("/").filter(Boolean);
  let parent = "/";
  for (const part of parts) {
    const child = posix.join(parent, part);
    if (!isDirectory(root, child)) makeOne(root, parent, part, owner);
    parent = child;
  }
}

function isDirectory(root: string, path: string): boolean {
  try {
    libc.close(openBeneath(root, path, { flags: O_PATH | constants.O_DIRECTORY }));
    return true;
  } catch (error) {
    if (error instanceof SystemCallError && error.code === "ENOENT") return false;
    throw error;
  }
}

function makeOne(root: string, parent: string, name: string, owner: { uid: number; gid: number }): void {
  const fd = openBeneath(root, parent, { flags: O_PATH | constants.O_DIRECTORY });
  try {
    // The parent is the directory that was opened; mkdir(2) and lchown(2) follow no symlink at the end.
    const path = `/proc/self/fd/${fd}/${name}`;
    mkdirSync(path, 0o755);
    lchownSync(path, owner.uid, owner.gid);
  } finally {
    libc.close(fd);
  }
}
