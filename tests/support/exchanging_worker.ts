/** Exchanges the two names of each pair, over and over, until the first number of `memory` is no longer 0. After each round it pauses for as many
 * milliseconds as the second number says. */
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
