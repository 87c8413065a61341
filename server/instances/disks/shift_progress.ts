import { progressNumbers, showProgress } from "../../../api/progress.ts";
import type { Operation } from "../../operations/operations.ts";
import type { ShiftPass } from "./shift_steps.ts";

/** Called for each tree whose owners are changed; the result for each pass through that tree; its result with the number of entries passed so far.
 * @param files Number of files in the tree, if known without a walk. */
export type ShiftProgress = (
  what: "container filesystem" | "storage volume",
  files?: number,
) => (pass: ShiftPass) => (entries: number) => void;

export const untold: ShiftProgress = () => () => () => {};

/** Shows the progress of a change of owners in an operation, with LXD's key and words. After the first pass the number of files is known. */
export function progressOf(operation: Pick<Operation, "update">, clock = () => performance.now()): ShiftProgress {
  return (what, files) => {
    const started = clock();
    let total = files || undefined, before = 0, last = 0, fraction = 0;
    return ({ index, of }) => {
      if (last > 0) total = last;
      before += last;
      last = 0;
      return (entries) => {
        last = entries;
        // Hard links are entries too: a pass counts for no more than its part. An additional pass does not lower the percentage.
        if (total) fraction = Math.max(fraction, (index + Math.min(1, entries / total)) / of);
        const elapsedMs = clock() - started;
        const done = total ? fraction * total : entries;
        const state = { done, total, elapsedMs, unit: "files" } as const;
        const { percent } = progressNumbers(state);
        operation.update({
          container_progress: showProgress(`Remapping ${what}`, state),
          progress: {
            stage: "container_progress",
            processed: String(before + entries),
            speed: String(Math.round(progressNumbers({ done: before + entries, elapsedMs }).rate)),
            ...(percent === undefined ? {} : { percent: String(percent) }),
          },
        });
      };
    };
  };
}
