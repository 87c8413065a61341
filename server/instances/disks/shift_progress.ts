import { progressNumbers, showProgress } from "../../../api/progress.ts";
import type { Operation } from "../../operations/operations.ts";
import type { ShiftPass } from "./shift_steps.ts";

/** Begins with another tree whose owners are changed, then with each walk through it; told of the entries that the walk has behind it.
 * @param files How many there are, where that is known without a walk. */
export type ShiftProgress = (
  what: "container filesystem" | "storage volume",
  files?: number,
) => (pass: ShiftPass) => (entries: number) => void;

export const untold: ShiftProgress = () => () => () => {};

/** Shows in an operation how far a change of owners is; LXD's key and words. How many files there are is at the latest known by the first walk. */
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
        // Files with several names are several entries: no walk is more than its part. One that turns out to be needed takes nothing back.
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
