/** Which host ids an instance's ids are.
 *
 * The host gives root ranges of ids (/etc/subuid, /etc/subgid). The first 65536 of the largest one are the *shared* map, which every instance
 * has unless told otherwise, so that they can share volumes. An *isolated* instance has a range of its own behind that. LXD lets the
 * shared map reach over the whole range, which then overlaps every isolated one; lido does not: no id of an isolated instance is anybody else's.
 * `raw.idmap` maps single ids to host ids that root was given in so many words (a line such as "root:1000:1").
 *
 * Nothing here is stored: ranges in use are read from the instances' `volatile.idmap.base`, so a deleted instance's range is free again. */

import { LidoError } from "../../api/errors.ts";
import type { Config } from "../../api/types.ts";
import type { IdMap, IdRange } from "../../drivers/runtime/runtime.ts";
import { isTrue } from "./config_keys.ts";

/** Ids of one container unless it asks for another number. */
export const idsPerInstance = 65536;
/** The kernel's limit on lines of an id map. @see user_namespaces(7) */
const linesMax = 340;

/** A range of host ids. */
export interface HostRange {
  readonly start: number;
  readonly count: number;
}

/** What the host gives root, uids and gids apart. */
export interface HostRanges {
  readonly uid: readonly HostRange[];
  readonly gid: readonly HostRange[];
}

/** The range of an isolated instance. */
export interface TakenRange {
  readonly base: number;
  readonly size: number;
}

/** A map as LXD writes it into `volatile.idmap.*`, one object for each line. */
interface WireRange {
  Isuid: boolean;
  Isgid: boolean;
  Hostid: number;
  Nsid: number;
  Maprange: number;
}

const refuse = (text: string): LidoError => new LidoError("bad_request", text);

/** Works out an instance's map.
 * @param config Expanded configuration. @param taken Ranges of the other isolated instances.
 * @param current `volatile.idmap.base` of this instance: kept if it still fits.
 * @returns `map` is absent for a privileged instance; `base` is what `volatile.idmap.base` says (0 unless isolated).
 * @throws {LidoError} bad_request on a malformed key or when no range is left. */
export function planIdmap(
  config: Config,
  ranges: HostRanges,
  taken: readonly TakenRange[],
  current?: number,
): { map?: IdMap; base: number } {
  if (isTrue(config["security.privileged"])) return { base: 0 };
  const main = mainRange(ranges);
  const raw = parseRawIdmap(config["raw.idmap"] ?? "");
  if (!isTrue(config["security.idmap.isolated"])) {
    return { map: withRaw({ start: main.start, count: sharedCount(main) }, raw, ranges, main), base: 0 };
  }
  const size = isolatedSize(config);
  const base = config["security.idmap.base"]
    ? fixedBase(Number(config["security.idmap.base"]), size, main, taken)
    : freeBase(size, main, taken, current);
  return { map: withRaw({ start: base, count: size }, raw, ranges, main), base };
}

/** @returns The ids an isolated instance takes up. */
export function isolatedSize(config: Config): number {
  const size = config["security.idmap.size"];
  const count = size && size !== "auto" ? Number(size) : idsPerInstance;
  if (count < 1) throw refuse("Invalid security.idmap.size: must be at least 1");
  return count;
}

/** The range that maps are cut from: the largest that holds for uids and gids alike. */
function mainRange(ranges: HostRanges): HostRange {
  let best: HostRange | undefined;
  for (const uid of ranges.uid) {
    for (const gid of ranges.gid) {
      const start = Math.max(uid.start, gid.start);
      const count = Math.min(uid.start + uid.count, gid.start + gid.count) - start;
      if (count > 0 && (!best || count > best.count)) best = { start, count };
    }
  }
  if (!best) throw refuse("No uid/gid range is given to root in /etc/subuid and /etc/subgid alike");
  return best;
}

const sharedCount = (main: HostRange): number => Math.min(idsPerInstance, main.count);

/** One that the user chose: another instance may have the very same, for the two to share volumes, but no part of it. */
function fixedBase(base: number, size: number, main: HostRange, taken: readonly TakenRange[]): number {
  const other = taken.find((range) =>
    overlaps(base, size, range.base, range.size) && !(range.base === base && range.size === size)
  );
  if (other) {
    throw refuse(
      `Invalid security.idmap.base: ids ${base} to ${base + size - 1} overlap those of another instance, ${
        describe({ start: other.base, count: other.size })
      }`,
    );
  }
  if (base < main.start || base + size > main.start + main.count) {
    throw refuse(
      `Not enough uid/gid available for the container: ids ${base} to ${base + size - 1} are not within root's range ${
        describe(main)
      }`,
    );
  }
  return base;
}

/** The lowest gap that fits, behind the shared map. Lowest first, so that what was freed is used again. */
function freeBase(size: number, main: HostRange, taken: readonly TakenRange[], current: number | undefined): number {
  const first = main.start + sharedCount(main);
  const end = main.start + main.count;
  const isFree = (base: number): boolean =>
    base >= first && base + size <= end &&
    taken.every((other) => base + size <= other.base || other.base + other.size <= base);
  if (current !== undefined && current > 0 && isFree(current)) return current;
  const candidates = [first, ...taken.map((other) => other.base + other.size)].sort((a, b) => a - b);
  const base = candidates.find(isFree);
  if (base === undefined) {
    throw refuse(
      `Not enough uid/gid available for the container: no ${size} free ids in a row in root's range ${
        describe(main)
      } (see /etc/subuid and /etc/subgid)`,
    );
  }
  return base;
}

const describe = (range: HostRange): string => `${range.start}-${range.start + range.count - 1}`;

interface RawEntry extends IdRange {
  readonly uid: boolean;
  readonly gid: boolean;
}

/** Reads `raw.idmap`: lines of "uid|gid|both <host id or range> <container id or range>".
 * @throws {LidoError} bad_request with LXD's texts. */
export function parseRawIdmap(text: string): RawEntry[] {
  const entries: RawEntry[] = [];
  for (const line of text.split("\n").map((each) => each.trim())) {
    if (line === "") continue;
    const parts = line.split(/\s+/);
    if (parts.length !== 3) throw refuse(`Invalid ID map line "${line}"`);
    const [type, hostText, containerText] = parts as [string, string, string];
    if (!["uid", "gid", "both"].includes(type)) throw refuse(`Invalid ID map type "${line}"`);
    const host = parseIds(hostText, line);
    const container = parseIds(containerText, line);
    if (host.count !== container.count) throw refuse(`The ID map ranges must be of the same size "${line}"`);
    entries.push({
      uid: type !== "gid",
      gid: type !== "uid",
      host: host.start,
      container: container.start,
      count: host.count,
    });
  }
  return entries;
}

function parseIds(text: string, line: string): HostRange {
  const match = /^(\d{1,10})(?:-(\d{1,10}))?$/.exec(text);
  const start = Number(match?.[1]);
  const end = match?.[2] === undefined ? start : Number(match[2]);
  // 4294967295 is "no id" to the kernel.
  if (!match || end < start || end > 4294967294) throw refuse(`Invalid ID map range "${text}" in "${line}"`);
  return { start, count: end - start + 1 };
}

function withRaw(base: HostRange, raw: readonly RawEntry[], ranges: HostRanges, main: HostRange): IdMap {
  const build = (kind: "uid" | "gid"): IdRange[] => {
    let lines: IdRange[] = [{ container: 0, host: base.start, count: base.count }];
    const placed: IdRange[] = [];
    const entries = raw.filter((each) => each[kind]);
    refuseOverlaps(entries);
    for (const entry of entries) {
      if (overlaps(entry.host, entry.count, main.start, main.count)) {
        throw refuse("Host id is in the range of subids");
      }
      const allowed = ranges[kind].some((range) =>
        entry.host >= range.start && entry.host + entry.count <= range.start + range.count
      );
      if (!allowed) {
        const ids = entry.count === 1 ? `${entry.host}` : describe({ start: entry.host, count: entry.count });
        throw refuse(
          `Invalid raw.idmap: host ${kind} ${ids} isn't allowed to root (add "root:${entry.host}:${entry.count}" to /etc/sub${kind})`,
        );
      }
      lines = lines.flatMap((line) => cut(line, entry));
      placed.push({ container: entry.container, host: entry.host, count: entry.count });
    }
    const all = [...lines, ...placed].sort((a, b) => a.container - b.container);
    if (all.length > linesMax) throw refuse(`Invalid raw.idmap: the map has more than ${linesMax} lines`);
    return all;
  };
  return { uid: build("uid"), gid: build("gid") };
}

const overlaps = (aStart: number, aCount: number, bStart: number, bCount: number): boolean =>
  aStart < bStart + bCount && bStart < aStart + aCount;

function refuseOverlaps(entries: readonly IdRange[]): void {
  for (const [index, entry] of entries.entries()) {
    for (const other of entries.slice(0, index)) {
      if (overlaps(entry.container, entry.count, other.container, other.count)) {
        throw refuse("Invalid raw.idmap: two entries map the same container id");
      }
      if (overlaps(entry.host, entry.count, other.host, other.count)) {
        throw refuse("Invalid raw.idmap: two entries map the same host id");
      }
    }
  }
}

/** Takes the container ids of `hole` out of `line`. */
function cut(line: IdRange, hole: IdRange): IdRange[] {
  const lineEnd = line.container + line.count;
  const holeEnd = hole.container + hole.count;
  if (holeEnd <= line.container || lineEnd <= hole.container) return [line];
  const parts: IdRange[] = [];
  if (line.container < hole.container) parts.push({ ...line, count: hole.container - line.container });
  if (holeEnd < lineEnd) {
    parts.push({ container: holeEnd, host: line.host + holeEnd - line.container, count: lineEnd - holeEnd });
  }
  return parts;
}

/** Writes a map as LXD does; no map (privileged, or not shifted) is "[]". */
export function formatIdmap(map: IdMap | undefined): string {
  if (!map) return "[]";
  const wire = (kind: "uid" | "gid"): WireRange[] =>
    map[kind].map((line) => ({
      Isuid: kind === "uid",
      Isgid: kind === "gid",
      Hostid: line.host,
      Nsid: line.container,
      Maprange: line.count,
    }));
  return JSON.stringify([...wire("uid"), ...wire("gid")]);
}

/** Reads what `formatIdmap` or LXD wrote. Absent, empty and "[]" are no map.
 * @throws {LidoError} internal when it is neither. */
export function parseIdmap(text: string | undefined): IdMap | undefined {
  if (!text || text === "[]" || text === "null") return undefined;
  let entries: WireRange[];
  try {
    entries = JSON.parse(text);
    if (!Array.isArray(entries)) throw new Error("not a list");
  } catch (error) {
    throw new LidoError("internal", `Cannot read the id map ${JSON.stringify(text)}`, { cause: error });
  }
  const lines = (isOf: (entry: WireRange) => boolean): IdRange[] =>
    entries.filter(isOf).map((entry) => ({ container: entry.Nsid, host: entry.Hostid, count: entry.Maprange }))
      .sort((a, b) => a.container - b.container);
  return { uid: lines((entry) => entry.Isuid), gid: lines((entry) => entry.Isgid) };
}

/** Whether two maps are the same, however they were written. */
export function sameIdmap(a: IdMap | undefined, b: IdMap | undefined): boolean {
  return formatIdmap(a) === formatIdmap(b);
}
