/** Progress in words: one form for the daemon's operations and the client's own transfers. */
import { showBytes } from "./size.ts";

/** Header of the answer to a download: id of the operation that reports its progress. */
export const operationHeader = "lido-operation";

export interface ProgressState {
  readonly done: number;
  /** What `done` will be at the end; absent when it is not known. */
  readonly total?: number | undefined;
  readonly elapsedMs: number;
  readonly unit?: "bytes" | "files";
}

export interface ProgressNumbers {
  /** 0 to 99: the operation itself reports its end. */
  readonly percent?: number;
  /** In bytes or files a second. */
  readonly rate: number;
  readonly secondsLeft?: number;
}

export function progressNumbers({ done, total, elapsedMs }: ProgressState): ProgressNumbers {
  const rate = elapsedMs > 0 ? done / (elapsedMs / 1000) : 0;
  if (total === undefined || total <= 0) return { rate };
  const percent = Math.max(0, Math.min(99, Math.floor(done / total * 100)));
  // More than expected: the rest is not known.
  if (rate === 0 || done >= total) return { percent, rate };
  return { percent, rate, secondsLeft: Math.ceil((total - done) / rate) };
}

/** `90s`, `12m05s`, `3h20m`. */
export function showDuration(seconds: number): string {
  const two = (value: number) => String(value).padStart(2, "0");
  if (seconds < 100) return `${seconds}s`;
  if (seconds < 6000) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`;
  return `${Math.floor(seconds / 3600)}h${two(Math.floor(seconds % 3600 / 60))}m`;
}

/** `data: 45% of 2.00GiB (310.00MiB/s, 4s left)`; without a total `data: 920.00MiB (310.00MiB/s)`. @param name Of what is transferred. */
export function showProgress(name: string, state: ProgressState): string {
  const { percent, rate, secondsLeft } = progressNumbers(state);
  const show = (amount: number) => state.unit === "files" ? `${Math.round(amount)} files` : showBytes(amount);
  const left = secondsLeft === undefined ? "" : `, ${showDuration(secondsLeft)} left`;
  const amount = percent === undefined ? show(state.done) : `${percent}% of ${show(state.total!)}`;
  return `${name}: ${amount} (${show(rate)}/s${left})`;
}
