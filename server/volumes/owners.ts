import { LidoError } from "../../api/errors.ts";
import { hostId } from "../../drivers/host/mounts/idmap.ts";
import type { IdMap } from "../../drivers/host/id_map.ts";

/** Owners of files as a container sees them, and as they are on disk. */

/** The id that the kernel shows for one that is not in the map. @see /proc/sys/kernel/overflowuid */
const nobody = 65534;

/** @param map The map that the files were made with; absent: ids are the same on both sides. */
export function idInside(map: IdMap | undefined, kind: "uid" | "gid", id: number): number {
  if (!map) return id;
  const range = map[kind].find(({ host, count }) => id >= host && id < host + count);
  return range ? range.container + id - range.host : nobody;
}

/** @throws {LidoError} bad_request when the map has no such id. */
export function idOnDisk(map: IdMap | undefined, kind: "uid" | "gid", id: number): number {
  if (!map) return id;
  const outside = hostId(map[kind], id);
  if (outside !== undefined) return outside;
  throw new LidoError("bad_request", `Invalid ${kind} ${id}: the id map of the files has no such id`);
}
