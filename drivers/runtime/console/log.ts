import { renameSync, rmSync, writeFileSync } from "node:fs";

/** Puts what a console printed in the place of the log that is there, or of a symbolic link, at one moment: whoever reads it meanwhile finds one of
 * the two. It is no fault to lose it with the host's power.
 * @param file In a directory of root's alone; the log is 0600. */
export function replaceConsoleLog(file: string, content: Uint8Array): void {
  const beside = `${file}.new`;
  rmSync(beside, { force: true });
  writeFileSync(beside, content, { mode: 0o600, flag: "wx" });
  renameSync(beside, file);
}
