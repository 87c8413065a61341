import { LidoError } from "../../api/errors.ts";
import { showBytes } from "../../api/size.ts";
import type { Config } from "../../api/types.ts";
import type { CreateOptions, Driver, VolumeType } from "../../drivers/storage/driver.ts";
import { sizeOf } from "../config/storage.ts";

/** What a volume's settings mean for its creation. */

export const volumeTypes: readonly VolumeType[] = ["container", "custom", "image"];

/** The pool's defaults that apply to a volume type: those for owners, schedules and sharing are for custom volumes only. */
export function onlyFor(pool: Config, type: VolumeType): Config {
  if (type === "custom") return pool;
  return Object.fromEntries(
    Object.entries(pool).filter(([key]) =>
      !/^volume\.(initial|security|snapshots)\./.test(key) && (type !== "image" || key !== "volume.size")
    ),
  );
}

/** @throws {LidoError} bad_request with the reason when the pool cannot limit a volume: a limit is never ignored silently. */
export function needQuota(driver: Driver, name: string) {
  const { quota } = driver.facets;
  if (!quota) throw new LidoError("bad_request", `Cannot limit the size of volume "${name}": ${driver.absent.quota}`);
  return quota;
}

/** Total size of each pool when it was last read. Some drivers start a process to read it; pools grow, so it is read again only when it seems too
 * small. */
const sizesSeen = new WeakMap<Driver, bigint>();

/** @param name Of the volume, for the message. @throws {LidoError} bad_request when one volume would be larger than its whole pool. */
export async function refuseOverPool(driver: Driver, name: string, sizeBytes: bigint | undefined): Promise<void> {
  if (sizeBytes === undefined || sizeBytes <= (sizesSeen.get(driver) ?? -1n)) return;
  const { space } = await driver.resources();
  sizesSeen.set(driver, space.total);
  if (sizeBytes <= space.total) return;
  throw new LidoError(
    "bad_request",
    `Invalid size of volume "${name}": ${showBytes(Number(sizeBytes))} is more than its pool has, ${
      showBytes(Number(space.total))
    }`,
  );
}

export function createOptions(driver: Driver, name: string, config: Config): CreateOptions {
  const sizeBytes = sizeOf(config);
  if (sizeBytes !== undefined) needQuota(driver, name);
  return {
    ...(sizeBytes === undefined ? {} : { sizeBytes }),
    uid: Number(config["initial.uid"] ?? 0),
    gid: Number(config["initial.gid"] ?? 0),
    mode: parseInt(config["initial.mode"] ?? "0711", 8),
  };
}

export function checkType(type: string): void {
  if (!(volumeTypes as readonly string[]).includes(type)) {
    throw new LidoError("bad_request", `Invalid storage volume type "${type}": ${volumeTypes.join(", ")} are allowed`);
  }
}
