import { isBun } from "./libc.ts";

/** Where a worker's code is. In the compiled executable every entry point has its path from the project's root inside the embedded filesystem;
 * elsewhere it lies beside its user.
 * @param name File of this directory. @param base `import.meta.url` of the caller. */
export function workerUrl(name: string, base: string): string {
  const embedded = isBun && base.includes("$bunfs");
  return embedded ? `./drivers/host/${name}` : new URL(name, base).href;
}
