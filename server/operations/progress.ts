import { progressNumbers, showProgress } from "../../api/progress.ts";
import type { Progress, WatchOptions } from "../../drivers/storage/driver.ts";
import type { Operation } from "./operations.ts";

const everyMs = 500;
/** A rate makes no sense before. */
const firstMs = 200;

/** Finds out what the bytes will be in the end; undefined when nobody knows. Asked only when the work takes long enough to be shown. */
export type Total = () => Promise<bigint | undefined>;

/** Shows in an operation how much was copied and how fast: `fs_progress` for people, `progress` for programs, with LXD's keys. It never goes
 * backwards, whoever counts again from nothing.
 * @param name What is copied. @returns To be told of the bytes so far, as often as one likes. */
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
      // A total that cannot be had is none; the work itself goes on.
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

/** What a driver is to be told for its work to be seen and cancelled by the operation. @param name What is copied. */
export function watch(operation: Operation, name: string, total?: Total): Required<WatchOptions> {
  return { signal: operation.signal, progress: progressOn(operation, name, total) };
}

/** For work in parts that each count from nothing, one after the other: their sum.
 * @returns What the next part is to be told with; nothing without `progress`. */
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
