import { LidoError } from "../../../api/errors.ts";
import { targetStatus } from "../../host/devices/device_mapper.ts";
import { deviceName } from "./layout.ts";

/** Fill level in blocks of the thin pool. */
export interface Filling {
  readonly used: bigint;
  readonly total: bigint;
}

export interface ThinStatus {
  readonly data: Filling;
  readonly metadata: Filling;
  /** "rw", or what limits it: "ro", "out_of_data_space", "Fail". */
  readonly mode: string;
}

/** From here on no more volumes are made: the existing ones need the rest. */
const refusedPercent = 98n;
const unwellPercent = 95n;

/** @returns undefined while the pool is not active. */
export function thinStatus(group: string, thinPool: string): ThinStatus | undefined {
  const name = deviceName(group, thinPool);
  // Once the pool has volumes, device-mapper has the pool itself as a hidden device "-tpool".
  for (const device of [`${name}-tpool`, name]) {
    const status = targetStatus(device);
    if (status?.type === "thin-pool") return parseThinStatus(status.parameters);
  }
  return undefined;
}

/** @param parameters "1 115/1024 0/65344 - rw discard_passdown …", or "Fail". @see Documentation/admin-guide/device-mapper/thin-provisioning.rst */
export function parseThinStatus(parameters: string): ThinStatus {
  const nothing = { used: 0n, total: 1n };
  if (/^(Fail|Error)/.test(parameters)) return { data: nothing, metadata: nothing, mode: "Fail" };
  const match = /^\d+ (\d+)\/(\d+) (\d+)\/(\d+) \S+ (\w+)/.exec(parameters);
  if (!match) throw new Error(`Cannot read the status of a thin pool: ${JSON.stringify(parameters.slice(0, 200))}`);
  const [metaUsed, metaTotal, dataUsed, dataTotal] = match.slice(1, 5).map(BigInt) as [bigint, bigint, bigint, bigint];
  return {
    metadata: { used: metaUsed, total: metaTotal },
    data: { used: dataUsed, total: dataTotal },
    mode: match[5]!,
  };
}

export function percentOf({ used, total }: Filling): bigint {
  return total === 0n ? 100n : used * 100n / total;
}

/** @throws {LidoError} unavailable when no more volumes may be made. */
export function refuseFull(pool: string, thinPool: string, status: ThinStatus): void {
  for (const kind of ["data", "metadata"] as const) {
    const percent = percentOf(status[kind]);
    if (percent < refusedPercent) continue;
    throw new LidoError(
      "unavailable",
      `Storage pool "${pool}" has no room for more: ${percent} % of the ${kind} of thin pool "${thinPool}" is used, ` +
        `from ${refusedPercent} % on nothing is made`,
    );
  }
}

export function healthOf(status: ThinStatus | undefined): { ok: boolean; text: string } {
  if (!status) return { ok: false, text: "the thin pool is not active" };
  if (status.mode !== "rw") return { ok: false, text: `the thin pool is in state ${status.mode}` };
  const data = percentOf(status.data), metadata = percentOf(status.metadata);
  return {
    ok: data < unwellPercent && metadata < unwellPercent,
    text: `${data} % of data, ${metadata} % of metadata used`,
  };
}
