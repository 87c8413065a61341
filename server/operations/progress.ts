import { progressNumbers, showProgress } from "../../api/progress.ts";
import type { Progress, WatchOptions } from "../../drivers/storage/driver.ts";
import type { Operation } from "./operations.ts";

const everyMs = 500;
/** Before this time a rate makes no sense. */
const firstMs = 200;

/** Finds out the total number of bytes; undefined when it is not known. Called only if the work takes long enough to be shown. */
export type Total = () => Promise<bigint | undefined>;

/** Shows in an operation how much was copied and how fast: `fs_progress` for people, `progress` for programs, with LXD's keys. It never goes
 * backwards, even if the caller's count starts again at 0.
 * @param name What is copied. @returns A function to call with the bytes so far, as often as needed. */
export function progressOn(
  operation: Pick<Operation, "update">,
  name: string,
  total?: Total,
  clock = () => performance.now(),
): Progress {
  const started = clock();
  let shownAt = started - everyMs + firstMs;
  let known: number | undefined, isAsked = false, shown = 0n;
  return (bytes, told) => {
    const now = clock();
    if (now - shownAt < everyMs) return;
    if (bytes < shown) return;
    shown = bytes;
    shownAt = now;
    if (told !== undefined) known = Number(told);
    else if (!isAsked) {
      isAsked = true;
      // A failure to find out the total does not fail the work.
      total?.().then((found) => known = found === undefined ? undefined : Number(found), () => {});
    }
    const state = { done: Number(bytes), total: known, elapsedMs: now - started };
    const { percent, rate } = progressNumbers(state);
    operation.update({
      fs_progress: showProgress(name, state),
      progress: {
        stage: "copy",
        processed: String(bytes),
        speed: String(Math.round(rate)),
        ...(percent === undefined ? {} : { percent: String(percent) }),
      },
    });
  };
}

/** Options for a driver that show its work in the operation, and let the operation cancel it. @param name What is copied. */
export function watch(operation: Operation, name: string, total?: Total): Required<WatchOptions> {
  return { signal: operation.signal, progress: progressOn(operation, name, total) };
}

/** Sums the progress of parts that run one after the other and each count from 0.
 * @returns A function that makes the next part's option; empty without `progress`. */
export function partsOf(progress: Progress | undefined): () => { progress?: Progress } {
  let before = 0n, bytes = 0n;
  return () => {
    if (!progress) return {};
    before = bytes;
    return {
      progress: (part) => {
        if (before + part > bytes) bytes = before + part;
        progress(bytes);
      },
    };
  };
}
