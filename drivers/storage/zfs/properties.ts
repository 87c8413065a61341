import { LidoError } from "../../../api/errors.ts";
import { parseSizeBytes } from "../../../api/size.ts";
import { CommandError } from "../../host/host.ts";
import type { Pool, Volume } from "../driver.ts";
import { isTrue } from "../keys.ts";
import type { Properties } from "./tool.ts";

/** Properties that containers need; every dataset below inherits them. */
export const datasetDefaults: Properties = {
  mountpoint: "legacy",
  relatime: "on",
  setuid: "on",
  exec: "on",
  devices: "on",
  acltype: "posixacl",
  xattr: "sa",
};

/** A volume's setting, or else the pool's default for its volumes. */
export function setting(pool: Pool, volume: Volume, key: string): string | undefined {
  return volume.config?.[key] || pool.config[`volume.${key}`] || undefined;
}

/** Properties to create a dataset with. @param sizeBytes undefined: no limit. */
export function createProperties(pool: Pool, volume: Volume, sizeBytes: bigint | undefined): Properties {
  return { ...recordSize(pool, volume), ...(sizeBytes === undefined ? {} : limits(pool, volume, sizeBytes)) };
}

function recordSize(pool: Pool, volume: Volume): Properties {
  const value = setting(pool, volume, "zfs.blocksize");
  return value === undefined ? {} : { recordsize: String(parseSizeBytes(value)) };
}

/** With `zfs.use_refquota`, snapshots do not count; with `zfs.reserve_space`, the space is reserved. */
function limits(pool: Pool, volume: Volume, sizeBytes: bigint): Properties {
  const prefix = isTrue(setting(pool, volume, "zfs.use_refquota")) ? "ref" : "";
  const isReserved = isTrue(setting(pool, volume, "zfs.reserve_space"));
  return {
    [`${prefix}quota`]: String(sizeBytes),
    ...(isReserved ? { [`${prefix}reservation`]: String(sizeBytes) } : {}),
  };
}

/** All properties that follow from a volume's settings, including defaults for those not set. */
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

/** Turns the error for a limit that the volume or the pool cannot have into one for the user. */
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
