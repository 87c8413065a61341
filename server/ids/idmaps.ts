/** Which host ids an instance's ids are.
 *
 * The host gives root ranges of ids (/etc/subuid, /etc/subgid). The first one with at least 65536 ids is, as a whole, the *shared* map, as on LXD.
 * Every instance that is neither isolated nor privileged has it, so that instances can share volumes, and owners are the same as in LXD's volumes
 * and backups.
 *
 * An *isolated* instance has a range of its own; no two isolated instances have an id in common. If root has a further range with at least 65536
 * ids, isolated ranges are cut from it: then no instance with the shared map has any of their ids either. Otherwise they are cut from the shared
 * range as LXD cuts them (next to each other, the first 65536 ids after its start): then ids from 65536 on of an instance with the shared map are
 * also ids of an isolated one. Other ranges than root's are never used: they may belong to host users or to other programs.
 *
 * `raw.idmap` maps single ids to any host ids except those in the ranges that maps are cut from, and those of isolated instances.
 *
 * Nothing here is stored: ranges in use are read from the instances' `volatile.idmap.base`, so a deleted instance's range is free again. */

import { LidoError } from "../../api/errors.ts";
import type { Config } from "../../api/types.ts";
import type { IdMap, IdRange } from "../../drivers/host/id_map.ts";
import { isTrue } from "../config/instance.ts";

/** Default number of ids of an isolated instance. A smaller range of root's is used for maps only if there is no larger one. */
const idsPerInstance = 65536;
/** The kernel's limit on lines of an id map. @see user_namespaces(7) */
const linesMax = 340;
/** Lines of a map that an error message shows. */
const describedLinesMax = 4;

/** A range of host ids. */
export interface HostRange {
  readonly start: number;
  readonly count: number;
}

/** The ranges that the host gives root, for uids and gids. */
export interface HostRanges {
  readonly uid: readonly HostRange[];
  readonly gid: readonly HostRange[];
}

/** Host ids that another instance has. */
export interface TakenRange {
  readonly base: number;
  readonly size: number;
  /** Whether they come from its `raw.idmap`, so that it shares them: a base chosen by the user may overlap them. */
  readonly isRaw?: boolean;
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

/** Computes an instance's map.
 * @param config Expanded configuration. @param taken Ranges of the other instances.
 * @param current `volatile.idmap.base` of this instance: kept if it still fits.
 * @returns `map` is absent for a privileged instance; `base` is for `volatile.idmap.base` (0 unless isolated).
 * @throws {LidoError} bad_request on a malformed key or when no range is left. */
export function planIdmap(
  config: Config,
  ranges: HostRanges,
  taken: readonly TakenRange[],
  current?: number,
): { map?: IdMap; base: number } {
  if (isTrue(config["security.privileged"])) return { base: 0 };
  const shared = sharedRanges(ranges);
  const raw = parseRawIdmap(config["raw.idmap"] ?? "");
  const reserved = (kind: "uid" | "gid"): HostRange[] => [
    shared[kind],
    ...ranges[kind].filter(({ count }) => count >= idsPerInstance),
    ...taken.filter(({ isRaw }) => !isRaw).map(({ base, size }) => ({ start: base, count: size })),
  ];
  if (!isTrue(config["security.idmap.isolated"])) return { map: withRaw(shared, raw, reserved), base: 0 };
  const size = isolatedSize(config);
  const base = config["security.idmap.base"]
    ? fixedBase(Number(config["security.idmap.base"]), size, ranges, taken)
    : freeBase(size, isolatedRanges(ranges, shared), taken, current);
  const own = { start: base, count: size };
  return { map: withRaw({ uid: own, gid: own }, raw, reserved), base };
}

/** Checks that the range of an isolated instance is still root's: /etc/subuid and /etc/subgid may have changed, and no other range been free.
 * @param config Expanded, with `volatile.idmap.base`. @throws {LidoError} bad_request */
export function checkOwnRange(config: Config, ranges: HostRanges): void {
  if (isTrue(config["security.privileged"]) || !isTrue(config["security.idmap.isolated"])) return;
  const own = { start: Number(config["volatile.idmap.base"] ?? 0), count: isolatedSize(config) };
  const common = commonRanges(ranges);
  if (common.some((range) => own.start >= range.start && own.start + own.count <= range.start + range.count)) return;
  throw refuse(
    `Not enough uid/gid available for the container: its ids ${describe(own)} are not within ${
      describeAll(common)
    }; the daemon looks for others when it starts`,
  );
}

/** @returns Number of ids of an isolated instance. */
export function isolatedSize(config: Config): number {
  const size = config["security.idmap.size"];
  const count = size && size !== "auto" ? Number(size) : idsPerInstance;
  if (count < 1) throw refuse("Invalid security.idmap.size: must be at least 1");
  return count;
}

/** The ranges of the shared map, for uids and gids: the first with at least 65536 ids, else the largest. */
export function sharedRanges(ranges: HostRanges): { uid: HostRange; gid: HostRange } {
  const choose = (kind: "uid" | "gid"): HostRange => {
    const largest = ranges[kind].toSorted((a, b) => b.count - a.count)[0];
    if (!largest) throw refuse(`No ${kind} range is given to root in /etc/sub${kind}`);
    return ranges[kind].find(({ count }) => count >= idsPerInstance) ?? largest;
  };
  return { uid: choose("uid"), gid: choose("gid") };
}

/** The ranges that isolated ones are cut from, the best first: those beside the shared map, then the shared map's after its first 65536 ids. */
function isolatedRanges(ranges: HostRanges, shared: { uid: HostRange; gid: HostRange }): HostRange[] {
  const isShared = (range: HostRange) => [shared.uid, shared.gid].some((other) => overlap(range, other));
  const further = commonRanges(ranges).filter((range) => range.count >= idsPerInstance && !isShared(range));
  const within = commonRanges({ uid: [shared.uid], gid: [shared.gid] }).flatMap(({ start, count }) =>
    count > idsPerInstance ? [{ start: start + idsPerInstance, count: count - idsPerInstance }] : []
  );
  return [...further, ...within];
}

/** Ranges that root has both as uids and as gids. */
function commonRanges(ranges: HostRanges): HostRange[] {
  return ranges.uid.flatMap((uid) =>
    ranges.gid.flatMap((gid) => {
      const start = Math.max(uid.start, gid.start);
      const count = Math.min(uid.start + uid.count, gid.start + gid.count) - start;
      return count > 0 ? [{ start, count }] : [];
    })
  );
}

/** Checks a base that the user chose: another instance may have exactly the same range, so that the two can share volumes, but no part of it. */
function fixedBase(base: number, size: number, ranges: HostRanges, taken: readonly TakenRange[]): number {
  const other = taken.find((range) =>
    !range.isRaw && overlaps(base, size, range.base, range.size) && !(range.base === base && range.size === size)
  );
  if (other) {
    throw refuse(
      `Invalid security.idmap.base: ids ${base} to ${base + size - 1} overlap those of another instance, ${
        describe({ start: other.base, count: other.size })
      }`,
    );
  }
  const common = commonRanges(ranges);
  if (!common.some(({ start, count }) => base >= start && base + size <= start + count)) {
    throw refuse(
      `Not enough uid/gid available for the container: ids ${base} to ${base + size - 1} are not within ${
        describeAll(common)
      }`,
    );
  }
  return base;
}

/** A base in the first range with room: the current one if it is free there, else the lowest, so that freed ids are used again. */
function freeBase(
  size: number,
  within: readonly HostRange[],
  taken: readonly TakenRange[],
  current: number | undefined,
): number {
  for (const { start, count } of within) {
    const isFree = (base: number): boolean =>
      base >= start && base + size <= start + count &&
      taken.every((other) => base + size <= other.base || other.base + other.size <= base);
    if (current !== undefined && isFree(current)) return current;
    const candidates = [start, ...taken.map((other) => other.base + other.size)].sort((a, b) => a - b);
    const base = candidates.find(isFree);
    if (base !== undefined) return base;
  }
  throw refuse(
    `Not enough uid/gid available for the container: no ${size} free ids in a row in ${describeAll(within)}`,
  );
}

const describe = (range: HostRange): string => `${range.start}-${range.start + range.count - 1}`;

const describeAll = (ranges: readonly HostRange[]): string =>
  `root's ids for it (${ranges.map(describe).join(", ") || "none"}; see /etc/subuid and /etc/subgid)`;

interface RawEntry extends IdRange {
  readonly uid: boolean;
  readonly gid: boolean;
}

/** Reads `raw.idmap`: lines of "uid|gid|both <host id or range> <container id or range>".
 * @throws {LidoError} bad_request with LXD's texts. */
function parseRawIdmap(text: string): RawEntry[] {
  const entries: RawEntry[] = [];
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const parts = line.split(" "); // no other separator, as in LXD
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

/** @param own The instance's range. @param reserved Host ids that `raw.idmap` must not use; neither must it use the instance's own. */
function withRaw(
  own: { uid: HostRange; gid: HostRange },
  raw: readonly RawEntry[],
  reserved: (kind: "uid" | "gid") => readonly HostRange[],
): IdMap {
  const build = (kind: "uid" | "gid"): IdRange[] => {
    const { start, count } = own[kind];
    let lines: IdRange[] = [{ container: 0, host: start, count }];
    const placed: IdRange[] = [];
    const entries = raw.filter((each) => each[kind]);
    refuseOverlaps(entries);
    for (const entry of entries) {
      const host = { start: entry.host, count: entry.count };
      if ([own[kind], ...reserved(kind)].some((range) => overlap(host, range))) {
        throw refuse("Host id is in the range of subids");
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

const overlap = (a: HostRange, b: HostRange): boolean => overlaps(a.start, a.count, b.start, b.count);

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

/** Removes the container ids of `hole` from `line`. */
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

/** Describes a map in an error message. */
export function describeIdmap(map: IdMap | undefined): string {
  if (!map) return "the host's ids (it is privileged)";
  const range = (start: number, count: number): string => count === 1 ? `${start}` : `${start}-${start + count - 1}`;
  const lines = (ranges: readonly IdRange[]): string =>
    ranges.length > describedLinesMax
      ? `${lines(ranges.slice(0, describedLinesMax))}, …`
      : ranges.map(({ container, host, count }) => `${range(container, count)} as ${range(host, count)}`).join(", ");
  const [uids, gids] = [lines(map.uid), lines(map.gid)];
  return uids === gids ? `ids ${uids}` : `uids ${uids} and gids ${gids}`;
}

/** Writes a map as LXD does; undefined (privileged, or not shifted) is "[]". */
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

/** Reads a map that `formatIdmap` or LXD wrote. Absent, empty and "[]" mean no map.
 * @throws {LidoError} internal when it cannot be read. */
export function parseIdmap(text: string | undefined): IdMap | undefined {
  if (!text || text === "[]" || text === "null") return undefined;
  let entries: WireRange[];
  try {
    entries = JSON.parse(text);
    if (!Array.isArray(entries)) throw new Error("not a list");
  } catch (error) {
    throw new LidoError("internal", `Cannot read the id map ${JSON.stringify(text)}`, { cause: error });
  }
  // LXD writes an entry of `raw.idmap` that is for both kinds twice.
  const lines = (isOf: (entry: WireRange) => boolean): IdRange[] =>
    entries.filter(isOf).map((entry) => ({ container: entry.Nsid, host: entry.Hostid, count: entry.Maprange }))
      .sort((a, b) => a.container - b.container)
      .filter(({ container }, index, all) => container !== all[index - 1]?.container);
  return { uid: lines((entry) => entry.Isuid), gid: lines((entry) => entry.Isgid) };
}

/** Whether two maps are equal. */
export function sameIdmap(a: IdMap | undefined, b: IdMap | undefined): boolean {
  return formatIdmap(a) === formatIdmap(b);
}

/** Whether `wide` maps each id of `narrow` to the same host id. */
export function extendsIdmap(wide: IdMap | undefined, narrow: IdMap | undefined): boolean {
  if (!wide || !narrow) return wide === narrow;
  return (["uid", "gid"] as const).every((kind) =>
    narrow[kind].every((line) => {
      const inWide = wide[kind].reduce(
        (sum, { container, host, count }) =>
          host - container === line.host - line.container
            ? sum +
              Math.max(
                0,
                Math.min(container + count, line.container + line.count) - Math.max(container, line.container),
              )
            : sum,
        0,
      );
      return inWide === line.count;
    })
  );
}
