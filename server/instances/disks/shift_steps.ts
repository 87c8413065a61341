/** Changes a tree's owners from one id map to another, in steps that can each be interrupted and repeated.
 *
 * A step can be repeated if each id shows whether it was changed. Where the maps overlap it does not (host id 200000 may be the owner 200000 of an
 * image, or the owner 100000 after the change). So rare ids, from 65536 on, are first parked at unused host ids. Then the usual ids are changed, and
 * last the parked ids are moved to their targets. Nearly every tree has no rare ids: then the first step only reads the owners and the last step is
 * skipped. The first step also refuses owners that have no place in the new map. */

import {
  completed,
  idsEnd,
  isMoved,
  isRepeatable,
  type Segment,
  segments,
  without,
} from "../../../drivers/host/ids/id_shift.ts";
import type { IdMap, IdRange } from "../../../drivers/host/id_map.ts";

/** First host ids of possible parking ranges: above the ids in common use, and enough of them that one range is free. */
const parkingStarts = [2 ** 31, 3 * 2 ** 30, 2 ** 30, 2 ** 31 + 2 ** 30 + 2 ** 29];
/** Nearly all owners are below this id of the container's. */
const usualIds = 65536;

/** The maps between two maps: first the rare ids are parked, then the usual ids are changed too. The second is absent if no usual id changes. */
export interface Detour {
  readonly parked: IdMap;
  readonly changed?: IdMap;
}

/** @returns undefined if the change can be made in one step. */
export function detour(from: IdMap | undefined, to: IdMap | undefined): Detour | undefined {
  if (isRepeatable(from, to)) return undefined;
  const uid = detourOf(from?.uid, to?.uid), gid = detourOf(from?.gid, to?.gid);
  const parked = { uid: uid.parked, gid: gid.parked };
  return uid.isChanged || gid.isChanged ? { parked, changed: { uid: uid.changed, gid: gid.changed } } : { parked };
}

/** One of the walks through a tree. */
export interface ShiftPass {
  /** From 0. */
  readonly index: number;
  /** Number of passes, as far as is known. */
  readonly of: number;
}

/** Runs the steps. @param step Changes the owners from one map to another and returns the number of changed entries; from that number,
 * `becomes` tells which map the tree has then. */
export async function shiftInSteps(
  from: IdMap | undefined,
  to: IdMap | undefined,
  step: (
    from: IdMap | undefined,
    to: IdMap | undefined,
    becomes: (changed: number) => IdMap | undefined,
    pass: ShiftPass,
  ) => Promise<number>,
): Promise<void> {
  const way = detour(from, to);
  if (!way) return void await step(from, to, () => to, { index: 0, of: 1 });
  const { parked, changed } = way;
  const usual = changed ? 2 : 1;
  const count = await step(from, parked, (count) => count === 0 && !changed ? to : parked, { index: 0, of: usual });
  const of = count > 0 ? usual + 1 : usual;
  if (changed) await step(parked, changed, () => count === 0 ? to : changed, { index: 1, of });
  if (count > 0) await step(changed ?? parked, to, () => to, { index: usual, of });
}

function detourOf(
  fromLines: readonly IdRange[] | undefined,
  toLines: readonly IdRange[] | undefined,
): { parked: IdRange[]; changed: IdRange[]; isChanged: boolean } {
  const all = segments(completed(fromLines), completed(toLines));
  const pieces = all.flatMap((each) => split(each, usualIds));
  let usual = pieces.filter((each) => isMoved(each) && each.container < usualIds);
  if (usual.some((a) => usual.some((b) => meet(a.source, a.count, b.target!, b.count)))) usual = [];
  const rare = pieces.filter((each) => isMoved(each) && !usual.includes(each));
  const lots = park(rare, [...fromLines ?? [], ...toLines ?? []]);
  const waiting = rare.map(({ container, count }, index) => ({ container, host: lots[index]!, count }));
  // An unchanged id in the parking range would be taken for a parked one, so the map leaves it out.
  const holes = waiting.map(({ host, count }) => ({ start: host, end: host + count }));
  const staying = pieces.filter((each) => each.target === each.source).flatMap(({ container, source, count }) =>
    without([{ start: source, end: source + count }], holes).map(({ start, end }) => ({
      container: container + start - source,
      host: start,
      count: end - start,
    }))
  );
  const lines = (own: readonly IdRange[]): IdRange[] => joined([...staying, ...waiting, ...own]);
  return {
    parked: lines(usual.map(({ container, source, count }) => ({ container, host: source, count }))),
    changed: lines(usual.map(({ container, target, count }) => ({ container, host: target!, count }))),
    isChanged: usual.length > 0,
  };
}

/** @returns For each piece, the host id at which its first id is parked. */
function park(pieces: readonly Segment[], lines: readonly IdRange[]): number[] {
  const count = pieces.reduce((sum, each) => sum + each.count, 0);
  const shifted = lines.filter(({ container, host }) => container !== host);
  const isFree = (start: number): boolean =>
    start + count < idsEnd - 1 &&
    !shifted.some((line) => meet(start, count, line.host, line.count)) &&
    !pieces.some(({ source, target, count: each }) =>
      meet(start, count, source, each) || meet(start, count, target!, each)
    );
  const start = parkingStarts.find(isFree);
  if (start === undefined) throw new Error("Cannot change the owners: no range of host ids is free to go over");
  let next = start;
  return pieces.map((each) => (next += each.count) - each.count);
}

function split(segment: Segment, at: number): Segment[] {
  const { container, count, source, target } = segment;
  if (at <= container || container + count <= at) return [segment];
  const first = at - container;
  const rest = target === undefined ? {} : { target: target + first };
  return [{ ...segment, count: first }, { container: at, count: count - first, source: source + first, ...rest }];
}

const meet = (aStart: number, aCount: number, bStart: number, bCount: number): boolean =>
  aStart < bStart + bCount && bStart < aStart + aCount;

/** The same map with adjacent lines merged. */
function joined(lines: readonly IdRange[]): IdRange[] {
  const result: IdRange[] = [];
  for (const line of lines.toSorted((a, b) => a.container - b.container)) {
    const last = result.at(-1);
    const goesOn = last && last.container + last.count === line.container && last.host + last.count === line.host;
    if (goesOn) result[result.length - 1] = { ...last, count: last.count + line.count };
    else result.push(line);
  }
  return result;
}
