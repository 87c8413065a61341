import { LidoError } from "../../../api/errors.ts";
import { parseSizeBytes } from "../../../api/size.ts";
import { CommandError } from "../../host/host.ts";
import type { Pool, Volume } from "../driver.ts";
import { isTrue } from "../keys.ts";
import type { Properties } from "./tool.ts";

/** What containers need of a filesystem; every dataset below inherits it. */
export const datasetDefaults: Properties = {
  mountpoint: "legacy",
  relatime: "on",
  setuid: "on",
  exec: "on",
  devices: "on",
  acltype: "posixacl",
  xattr: "sa",
};

/** A volume's setting, or the pool's for its volumes. */
export function setting(pool: Pool, volume: Volume, key: string): string | undefined {
  return volume.config?.[key] || pool.config[`volume.${key}`] || undefined;
}

/** What a dataset gets with its first moment. @param sizeBytes undefined: no limit. */
export function createProperties(pool: Pool, volume: Volume, sizeBytes: bigint | undefined): Properties {
  return { ...recordSize(pool, volume), ...(sizeBytes === undefined ? {} : limits(pool, volume, sizeBytes)) };
}

function recordSize(pool: Pool, volume: Volume): Properties {
  const value = setting(pool, volume, "zfs.blocksize");
  return value === undefined ? {} : { recordsize: String(parseSizeBytes(value)) };
}

/** By `zfs.use_refquota`, snapshots do not count; by `zfs.reserve_space`, the space is set aside. */
function limits(pool: Pool, volume: Volume, sizeBytes: bigint): Properties {
  const prefix = isTrue(setting(pool, volume, "zfs.use_refquota")) ? "ref" : "";
  const isReserved = isTrue(setting(pool, volume, "zfs.reserve_space"));
  return {
    [`${prefix}quota`]: String(sizeBytes),
    ...(isReserved ? { [`${prefix}reservation`]: String(sizeBytes) } : {}),
  };
}

/** All that follows from a volume's settings, what is not set included. */
export function allProperties(pool: Pool, volume: Volume, sizeBytes: bigint | undefined): Properties {
  return { ...recordSize(pool, volume), ...allLimits(pool, volume, sizeBytes) };
}

export function allLimits(pool: Pool, volume: Volume, sizeBytes: bigint | undefined): Properties {
  return {
    ...{ quota: "none", refquota: "none", reservation: "none", refreservation: "none" },
    ...(sizeBytes === undefined ? {} : limits(pool, volume, sizeBytes)),
  };
}

export function usesReferenced(pool: Pool, volume: Volume): boolean {
  return isTrue(setting(pool, volume, "zfs.use_refquota"));
}

/** A limit that the volume or the pool cannot have is the user's to mend. */
export function explainLimit(error: unknown): unknown {
  if (!(error instanceof CommandError)) return error;
  const reason = /size is (?:less than current used or reserved space|greater than available space)|out of space/.exec(
    error.stderr,
  )?.[0];
  if (!reason) return error;
  const text = reason === "out of space"
    ? "Not enough space in the pool for the volume"
    : "Cannot set the size of the volume";
  return new LidoError("bad_request", `${text}: ${reason}`);
}
