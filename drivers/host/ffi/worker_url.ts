import { isBun } from "./libc.ts";

/** Where a worker's code is. In the compiled executable every entry point keeps its path from the project's root inside the embedded filesystem;
 * elsewhere it is a file.
 * @param path From the project's root. */
export function workerUrl(path: string): string {
  const isEmbedded = isBun && import.meta.url.includes("$bunfs");
  return isEmbedded ? `./${path}` : new URL(`../../../${path}`, import.meta.url).href;
}
