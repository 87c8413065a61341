import { readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { LidoError } from "../../api/errors.ts";
import { recordsDirectory } from "./layout.ts";

/** Deletes a pool's root directory (mount point or tree). A record may still be in it, written just as the pool was deleted: it is deleted too.
 * Anything else stays. @throws {LidoError} conflict, naming what is there. */
export async function deletePoolRoot(root: string): Promise<void> {
  const isGone = await rmdir(root).then(() => true, (error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return true;
    if (error.code === "ENOTEMPTY") return false;
    throw error;
  });
  if (isGone) return;
  const others = (await readdir(root)).filter((name) => name !== recordsDirectory);
  if (others.length > 0) {
    throw new LidoError(
      "conflict",
      `Cannot delete the pool's directory "${root}": it has "${others[0]}", which is not its own`,
    );
  }
  await rm(join(root, recordsDirectory), { recursive: true, force: true });
  await rmdir(root);
}
