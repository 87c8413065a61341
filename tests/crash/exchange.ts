/** Replaces drivers/host/files/exchange.ts in the daemon of the crash tests. */
import * as real from "../../drivers/host/files/exchange.ts";
import { isTurnOf, point } from "./points.ts";

function watched<T>(what: string, work: () => T): T {
  point(`before ${what}`);
  if (isTurnOf("fail", what)) throw new Error("an injected failure");
  const result = work();
  if (isTurnOf("late", what)) throw new Error("an injected failure");
  point(`after ${what}`);
  return result;
}

export function exchange(one: string, other: string): void {
  watched(`exchange ${one} ${other}`, () => real.exchange(one, other));
}

export function renameNew(from: string, to: string): boolean {
  return watched(`rename ${from} ${to}`, () => real.renameNew(from, to));
}
