import { spawn } from "node:child_process";
import { constants } from "node:os";

/** How long a program may take to end when we are to. */
const patienceMs = 2000;

/** Runs a program on the client's own terminal, such as an editor, to its end. A Ctrl-C meanwhile is the program's.
 * @param ending Aborted by a signal's name when we are to end: the program gets it, and SIGKILL if it stays.
 * @returns Its exit code, 128 and the signal's number when one ended it. @throws {Error} ENOENT and the like when it cannot be started. */
export async function runForeground(argv: readonly string[], ending: AbortSignal): Promise<number> {
  const ignore = () => {};
  using end = new DisposableStack();
  process.on("SIGINT", ignore);
  try {
    return await new Promise<number>((resolve, reject) => {
      const child = spawn(argv[0]!, argv.slice(1), { stdio: "inherit" });
      const onAbort = () => {
        child.kill(ending.reason as NodeJS.Signals);
        const late = setTimeout(() => child.kill("SIGKILL"), patienceMs);
        end.defer(() => clearTimeout(late));
      };
      ending.addEventListener("abort", onAbort);
      end.defer(() => ending.removeEventListener("abort", onAbort));
      child.once("error", reject);
      child.once("exit", (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
    });
  } finally {
    process.off("SIGINT", ignore);
  }
}
