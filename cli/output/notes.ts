import type { Operation } from "../../api/types.ts";
import type { Io } from "../verb.ts";
import { neutralise } from "./text.ts";

/** Shows what the daemon says about a change that succeeded, on stderr: that a key takes effect with the next start, that an instance has ended at once. */
export function showNotes(io: Io, operation: Operation | undefined): void {
  const notes = operation?.metadata?.notes;
  if (io.quiet || !Array.isArray(notes)) return;
  for (const note of notes) io.err(`Note: ${neutralise(String(note))}\n`);
}
