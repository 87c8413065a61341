import { spawn } from "node:child_process";
import { constants } from "node:os";

/** How long the program may take to end when the client is asked to end. */
const patienceMs = 2000;

/** Runs a program on the client's own terminal, such as an editor, until it ends. Ctrl-C goes to the program meanwhile.
 * @param ending Aborted with a signal's name when the client is to end: the program gets that signal, and SIGKILL if it does not end.
 * @returns Its exit code; 128 plus the signal's number when a signal ended it. @throws {Error} ENOENT and the like when it cannot be started. */
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
