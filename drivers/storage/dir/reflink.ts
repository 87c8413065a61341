import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CommandError, type Host } from "../../host/host.ts";
import { temporaryPrefix } from "../layout.ts";

/** Tries whether files in `directory` can share blocks: there is no way to ask. @see ioctl_ficlone(2) */
export async function canReflink(host: Host, directory: string): Promise<boolean> {
  const source = join(directory, `${temporaryPrefix}reflink`), target = `${source}-copy`;
  try {
    await writeFile(source, ""); // empty: it fits on a full disk, too
    await writeFile(target, "");
    const tools = host.confined({ reads: { "/source": source }, writes: { "/target": target } });
    await tools.run(["cp", "--reflink=always", "--", "/source", "/target"]);
    return true;
  } catch (error) {
    if (error instanceof CommandError || (error as NodeJS.ErrnoException).code === "ENOSPC") return false;
    throw error;
  } finally {
    await rm(source, { force: true });
    await rm(target, { force: true });
  }
}
