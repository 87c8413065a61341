import { closeSync, constants, fchmodSync, fsync, openSync, unlinkSync, writeFileSync } from "node:fs";
import { rename, unlink } from "node:fs/promises";
import { promisify } from "node:util";
import { openBeneath } from "./beneath.ts";
import { libc } from "../ffi/libc.ts";

const sync = promisify(fsync);
const O_PATH = 0x200000, O_DIRECTORY = 0x10000, O_NOFOLLOW = 0x20000;

/** Replaces a file atomically: after a kill or a power failure it has the old text or the new one, never a part of it.
 * No symlink is followed, neither on the way nor at the end: one that an image or another host planted is itself replaced.
 * @param root A trusted host path. @param directory In it, e.g. "containers/c1", which may be a mount of ours. @param mode Owner is root.
 * @throws {SystemCallError} ENOENT when the directory is missing; ELOOP for a symlink on the way. */
export async function replaceFile(
  root: string,
  directory: string,
  name: string,
  text: string,
  mode: number,
): Promise<void> {
  const fd = openBeneath(root, directory, { flags: O_PATH | O_DIRECTORY | O_NOFOLLOW, acrossMounts: true });
  // The path names the directory that was opened, whatever is renamed meanwhile.
  const at = (file: string) => `/proc/self/fd/${fd}/${file}`;
  const beside = `.${name}.lido`;
  try {
    // Synchronous where only memory is written: a turn of the event loop for each step costs more. Only the sync is awaited.
    const file = openNew(at(beside), mode);
    try {
      fchmodSync(file, mode); // open's mode is reduced by the umask
      writeFileSync(file, text);
      await sync(file);
    } finally {
      closeSync(file);
    }
    await rename(at(beside), at(name)).catch(async (error) => {
      await unlink(at(beside)).catch(ignoreMissing);
      throw error;
    });
  } finally {
    libc.close(fd);
  }
}

/** An existing file of this name was left by a kill. */
function openNew(path: string, mode: number): number {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | O_NOFOLLOW;
  try {
    return openSync(path, flags, mode);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    unlinkSync(path);
    return openSync(path, flags, mode);
  }
}

/** Removes a file; a missing one is no error. */
export async function removeFile(root: string, directory: string, name: string): Promise<void> {
  let fd: number;
  try {
    fd = openBeneath(root, directory, { flags: O_PATH | O_DIRECTORY | O_NOFOLLOW, acrossMounts: true });
  } catch (error) {
    return ignoreMissing(error as NodeJS.ErrnoException);
  }
  try {
    await unlink(`/proc/self/fd/${fd}/${name}`).catch(ignoreMissing);
  } finally {
    libc.close(fd);
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOENT") throw error;
}
