/** drivers/host/exchange.ts for the daemon of the crash tests. */
import { exchange as real } from "../../drivers/host/exchange.ts";
import { isTurnOf, point } from "./points.ts";

export function exchange(one: string, other: string): void {
  const what = `exchange ${one} ${other}`;
  point(`before ${what}`);
  if (isTurnOf("fail", what)) throw new Error("an injected failure");
  real(one, other);
  if (isTurnOf("late", what)) throw new Error("an injected failure");
  point(`after ${what}`);
}
