import type { Progress, WatchOptions } from "../../drivers/storage/driver.ts";
import type { Operation } from "./operations.ts";

const everyMs = 500;
/** A rate makes no sense before. */
const firstMs = 200;
const units = ["B", "kB", "MB", "GB", "TB"];

/** Shows in an operation how much was copied and how fast, as LXD does: `fs_progress` for people, `progress` for programs.
 * @param name What is copied. @returns To be told of the bytes so far, as often as one likes. */
export function showProgress(operation: Operation, name: string): Progress {
  const started = performance.now();
  let shownAt = started - everyMs + firstMs;
  return (bytes) => {
    const now = performance.now();
    if (now - shownAt < everyMs) return;
    shownAt = now;
    const speed = Math.round(Number(bytes) / ((now - started) / 1000));
    operation.update({
      fs_progress: `${name}: ${showBytes(Number(bytes))} (${showBytes(speed)}/s)`,
      progress: { stage: "copy", processed: String(bytes), speed: String(speed) },
    });
  };
}

/** What a driver is to be told for its work to be seen and cancelled by the operation. @param name What is copied. */
export function watch(operation: Operation, name: string): Required<WatchOptions> {
  return { signal: operation.signal, progress: showProgress(operation, name) };
}

export function showBytes(bytes: number): string {
  let value = bytes, unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(2)}${units[unit]}`;
}
