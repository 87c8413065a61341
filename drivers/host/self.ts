import { fileURLToPath } from "node:url";
import { isBun } from "./libc.ts";

/** How this program is started once more, for a part of it that is a process of its own.
 * @param words Command line of the compiled executable. @param module File beside the caller that does the same, for Deno.
 * @param base `import.meta.url` of the caller. @returns File and argv, which begins with the file's name. */
export function startAgain(
  words: readonly string[],
  module: string,
  base: string,
): { readonly file: string; readonly argv: readonly string[] } {
  const file = process.execPath;
  if (isBun) return { file, argv: [file, ...words] };
  return { file, argv: [file, "run", "-A", "--no-check", fileURLToPath(new URL(module, base)), ...words] };
}
