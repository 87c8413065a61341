import type { Io } from "../verb.ts";
import { neutralise } from "./text.ts";

/** Shows what the daemon says about a change that succeeded, on stderr: that a key takes effect with the next start, that an instance has ended at once.
 * @param metadata Of the operation, or of the answer when the change was made at once. */
export function showNotes(io: Io, metadata: unknown): void {
  const notes = (metadata as { notes?: unknown } | null | undefined)?.notes;
  if (io.quiet || !Array.isArray(notes)) return;
  for (const note of notes) io.err(`Note: ${neutralise(String(note))}\n`);
}
