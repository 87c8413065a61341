import type { Io } from "../verb.ts";
import { neutralise } from "./text.ts";

/** Shows the daemon's notes on a successful change, on stderr: that a key takes effect with the next start, that an instance ended at once.
 * @param metadata Of the operation, or of the answer when the change was made at once. */
export function showNotes(io: Io, metadata: unknown): void {
  const notes = (metadata as { notes?: unknown } | null | undefined)?.notes;
  if (io.quiet || !Array.isArray(notes)) return;
  for (const note of notes) io.err(`Note: ${neutralise(String(note))}\n`);
}
