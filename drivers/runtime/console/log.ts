import { renameSync, rmSync, writeFileSync } from "node:fs";

/** Replaces the log, or a symbolic link in its place, by a console's output, atomically: a reader finds the old log or the new one. It is not
 * flushed: the log may be lost in a power failure.
 * @param file In a directory that only root can access; the log is 0600. */
export function replaceConsoleLog(file: string, content: Uint8Array): void {
  const beside = `${file}.new`;
  rmSync(beside, { force: true });
  writeFileSync(beside, content, { mode: 0o600, flag: "wx" });
  renameSync(beside, file);
}
