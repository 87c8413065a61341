import { spawn } from "node:child_process";
import { constants } from "node:os";

/** Runs a program on the client's own terminal, such as an editor, to its end. A Ctrl-C meanwhile is the program's.
 * @returns Its exit code, 128 and the signal's number when one ended it. @throws {Error} ENOENT and the like when it cannot be started. */
export async function runForeground(argv: readonly string[]): Promise<number> {
  const ignore = () => {};
  process.on("SIGINT", ignore);
  try {
    return await new Promise<number>((resolve, reject) => {
      const child = spawn(argv[0]!, argv.slice(1), { stdio: "inherit" });
      child.once("error", reject);
      child.once("exit", (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
    });
  } finally {
    process.off("SIGINT", ignore);
  }
}
