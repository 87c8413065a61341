import { fileURLToPath } from "node:url";
import { check, cString, isBun, libc } from "../ffi/libc.ts";
import { closeFd, spawnProcess } from "./process.ts";

/** How to start this program again, for a part of it that is a separate process.
 * @param words Command line of the compiled executable. @param module File beside the caller that does the same, for Deno.
 * @param base `import.meta.url` of the caller. @returns File and argv, which begins with the file's name. */
function startAgain(
  words: readonly string[],
  module: string,
  base: string,
): { readonly file: string; readonly argv: readonly string[] } {
  const file = process.execPath;
  // If a daemon's executable was replaced meanwhile, its path names another one, or nothing.
  if (isBun) return { file: "/proc/self/exe", argv: [file, ...words] };
  return { file, argv: [file, "run", "-A", "--no-check", fileURLToPath(new URL(module, base)), ...words] };
}

/** Starts this program again as a server on a socket, inheriting nothing else from us.
 * @param words, module, base As above. @param socket Becomes its descriptor 3. @returns Its pid. */
export function serveAgain(words: readonly string[], module: string, base: string, socket: number): number {
  const { file, argv } = startAgain(words, module, base);
  const O_RDWR = 2, O_CLOEXEC = 0x80000;
  const nothing = check("open /dev/null", libc.open(cString("/dev/null"), O_RDWR | O_CLOEXEC, 0));
  try {
    return spawnProcess({
      file,
      argv,
      environment: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
      stdio: { stdin: nothing, stdout: nothing, stderr: nothing },
      cwd: "/",
      extra: socket,
    });
  } finally {
    closeFd(nothing);
  }
}
