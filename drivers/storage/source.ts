import { constants } from "node:fs";
import { access, lstat, open, readdir, readlink, realpath } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";
import { LidoError } from "../../api/errors.ts";
import type { Pool } from "./driver.ts";

/** Checks of a pool's `source` that several drivers use. */

const refused = (text: string) => new LidoError("bad_request", text);

/** @returns The real path of a directory that a pool may be made in: the pool's root, or an existing empty directory outside of any lido directory.
 * @throws {LidoError} bad_request. */
export async function checkSourceDirectory(pool: Pool, source: string): Promise<string> {
  if (!isAbsolute(source)) throw refused(`Source path '${source}' isn't absolute`);
  if (join(source, ".") === pool.root) return pool.root;
  const info = await lstat(source).catch(() => undefined);
  if (!info) throw refused(`Source path '${source}' doesn't exist`);
  if (info.isSymbolicLink()) {
    throw refused(`Source path '${source}' is a symbolic link to '${await readlink(source)}': name a directory itself`);
  }
  if (!info.isDirectory()) throw refused(`Source path '${source}' isn't a directory`);
  const real = await realpath(source);
  const own = dirname(dirname(pool.root));
  if (real === own || real.startsWith(`${own}/`)) throw refused(`Source path '${source}' is within the lido directory`);
  for (let above = real; above !== "/"; above = dirname(above)) {
    const isDaemons = await access(join(above, "lido.db")).then(() => true, () => false);
    if (isDaemons) throw refused(`Source path '${source}' is within the directory of another lido, "${above}"`);
  }
  if ((await readdir(real)).length > 0) throw refused(`Source path '${source}' isn't empty`);
  return real;
}

/** @throws {LidoError} bad_request when the device is mounted, a swap, or part of another device: the kernel refuses it to an exclusive
 * open. @see open(2), O_EXCL */
export async function refuseBusyDevice(device: string): Promise<void> {
  try {
    await (await open(device, constants.O_RDWR | constants.O_EXCL)).close();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EBUSY") {
      throw refused(`Source "${device}" is in use: it is mounted, a swap, or part of another device`);
    }
    throw refused(`Cannot use source "${device}": ${(error as Error).message}`);
  }
}
