/** Exchanges pairs of names with each other, all the time, until the first number of `ended` is no longer 0. */
import { exchange } from "../../drivers/host/exchange.ts";

interface Task {
  readonly pairs: readonly (readonly [string, string])[];
  readonly ended: Int32Array;
}

declare const self: { onmessage: ((event: MessageEvent<Task>) => void) | null; postMessage(message: string): void };

self.onmessage = ({ data: { pairs, ended } }) => {
  self.postMessage("begun");
  while (Atomics.load(ended, 0) === 0) {
    for (const [one, other] of pairs) exchange(one, other);
  }
  self.postMessage("ended");
};
