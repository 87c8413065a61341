/** Exchanges pairs of names with each other, all the time, until the first number of `memory` is no longer 0; rests for as many milliseconds as the
 * second one says after all pairs. */
import { exchange } from "../../drivers/host/files/exchange.ts";

interface Task {
  readonly pairs: readonly (readonly [string, string])[];
  readonly memory: Int32Array;
}

declare const self: { onmessage: ((event: MessageEvent<Task>) => void) | null; postMessage(message: string): void };

self.onmessage = ({ data: { pairs, memory } }) => {
  self.postMessage("begun");
  while (Atomics.load(memory, 0) === 0) {
    for (const [one, other] of pairs) exchange(one, other);
    const restMs = Atomics.load(memory, 1);
    if (restMs > 0) Atomics.wait(memory, 0, 0, restMs);
  }
  self.postMessage("ended");
};
