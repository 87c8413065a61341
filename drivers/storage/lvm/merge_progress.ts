import { targetStatus } from "../../host/devices/device_mapper.ts";
import type { Progress } from "../driver.ts";
import { deviceName } from "./layout.ts";

const everyMs = 250;
const sectorBytes = 512n;

/** Reports how much of a classic snapshot was merged back, as the kernel counts it, until it is disposed of. */
export function watchMerge(group: string, origin: string, progress: Progress): Disposable {
  let atFirst: bigint | undefined;
  const timer = setInterval(() => {
    const status = targetStatus(deviceName(group, origin));
    const left = status?.type === "snapshot-merge" ? parseMergeLeft(status.parameters) : undefined;
    if (left === undefined) return; // not begun yet, or complete
    atFirst ??= left;
    progress(atFirst - left, atFirst);
  }, everyMs);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** @param parameters "1234/204800 16": remaining sectors with those of the metadata, total sectors, metadata sectors.
 * @returns Remaining bytes; undefined for a merge that has failed. @see Documentation/admin-guide/device-mapper/snapshot.rst */
export function parseMergeLeft(parameters: string): bigint | undefined {
  const match = /^(\d+)\/\d+ (\d+)$/.exec(parameters);
  return match ? (BigInt(match[1]!) - BigInt(match[2]!)) * sectorBytes : undefined;
}
