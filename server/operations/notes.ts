import type { Operation } from "./operations.ts";

/** Tells whoever waits for an operation what it should know although the operation succeeds: `notes` in its metadata, a list of sentences (extension
 * operation_notes). */
export function note(operation: Operation, ...texts: readonly (string | undefined)[]): void {
  const notes = texts.filter((text) => text !== undefined);
  if (notes.length === 0) return;
  const before = operation.view().metadata?.notes;
  operation.update({ notes: [...(Array.isArray(before) ? before : []), ...notes] });
}
