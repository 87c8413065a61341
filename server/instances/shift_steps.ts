import { isRepeatable } from "../../drivers/host/id_shift.ts";
import type { IdMap, IdRange } from "../../drivers/runtime/runtime.ts";

/** Where ids may wait: beyond what people have, in ranges of which one is free. */
const parkingStarts = [2 ** 31, 3 * 2 ** 30, 2 ** 30, 2 ** 31 + 2 ** 30 + 2 ** 29];

/** The maps to go through, one after the other, to come from one to another. Each step can be cut off and repeated. That is not so when the two
 * overlap (a base moved by less than its size): there an id would not tell whether it was changed, so the way leads over ids that nobody has.
 * @returns The maps after `from`; the last is `to`. */
export function shiftSteps(from: IdMap | undefined, to: IdMap | undefined): (IdMap | undefined)[] {
  if (isRepeatable(from, to)) return [to];
  const ranges = [from, to].flatMap((map) => map ? [...map.uid, ...map.gid] : []);
  const count = Math.max(...ranges.map((range) => range.container + range.count));
  for (const start of parkingStarts) {
    if (start + count > 4294967294) continue;
    const lines: readonly IdRange[] = [{ container: 0, host: start, count }];
    const parking = { uid: lines, gid: lines };
    if (isRepeatable(from, parking) && isRepeatable(parking, to)) return [parking, to];
  }
  throw new Error("Cannot change the owners: no range of host ids is free to go over");
}
