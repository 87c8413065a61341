import { progressNumbers, showProgress } from "../../api/progress.ts";
import type { Operation } from "../operations/operations.ts";
import type { ShiftProgress } from "./rootfs.ts";

/** Shows in an operation how many files a change of owners has behind it; LXD's key and words. How many there are nobody knows before. */
export function progressOf(operation: Operation, what: "container" | "volume" = "container"): ShiftProgress {
  const name = `Remapping ${what === "volume" ? "storage volume" : "container filesystem"}`;
  let started: number | undefined;
  return (entries) => {
    started ??= performance.now();
    const state = { done: entries, elapsedMs: performance.now() - started, unit: "files" } as const;
    operation.update({
      container_progress: showProgress(name, state),
      progress: {
        stage: "container_progress",
        processed: String(entries),
        speed: String(Math.round(progressNumbers(state).rate)),
      },
    });
  };
}
