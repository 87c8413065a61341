import { allowedKeys } from "../../api/allowed.ts";
import { LidoError } from "../../api/errors.ts";
import { parseSizeBytes, sizeUnits } from "../../api/size.ts";
import type { Config } from "../../api/types.ts";
import type { ConfigKey, Driver, DriverKind } from "../../drivers/storage/driver.ts";
import { boolean, commonVolumeKeys, isTrue } from "../../drivers/storage/keys.ts";
import type { Database } from "../state/database.ts";
import { expiryProblem, scheduleProblem } from "../schedules/schedule.ts";
import { patternProblem } from "../schedules/snapshot_pattern.ts";

/** Keys of custom volumes that the server interprets, not the driver. */
const serverVolumeKeys: Readonly<Record<string, ConfigKey>> = {
  "security.shifted": {
    check: boolean,
    default: "false",
    help: "Whether containers with different id maps can share the volume, by idmapped mounts",
  },
  "security.unmapped": {
    check: boolean,
    default: "false",
    help: "Whether the volume is mounted without an id map: containers see the owners of the host",
  },
  "snapshots.expiry": { check: expiryProblem, help: "Lifetime of new snapshots, such as `1d 3H`" },
  "snapshots.expiry.manual": {
    check: expiryProblem,
    help: "Lifetime of snapshots that a client takes; `snapshots.expiry` where it is not set",
  },
  "snapshots.pattern": {
    check: patternProblem,
    default: "snap%d",
    help: "Name of snapshots that are given none; with `%d` or `{{ creation_date }}`",
  },
  "snapshots.schedule": {
    check: scheduleProblem,
    help: "When snapshots are taken: a cron expression, or `@daily` and the like",
  },
};

/** All keys of a volume on a pool of this kind. */
export function volumeKeys(kind: DriverKind): Readonly<Record<string, ConfigKey>> {
  return { ...commonVolumeKeys, ...serverVolumeKeys, ...kind.volumeKeys };
}

const isFree = (key: string) => key.startsWith("user.") || key.startsWith("volatile.");

/** @throws {LidoError} bad_request with LXD's texts. */
export function checkPoolConfig(kind: DriverKind, config: Config): void {
  const forVolumes = volumeKeys(kind);
  for (const [name, value] of Object.entries(config)) {
    if (isFree(name)) continue;
    const key = name.startsWith("volume.") ? own(forVolumes, name.slice("volume.".length)) : own(kind.poolKeys, name);
    if (!key) {
      const known = [...Object.keys(kind.poolKeys), ...Object.keys(forVolumes).map((one) => `volume.${one}`), "user."];
      throw new LidoError("bad_request", `Invalid option "${name}": ${allowedKeys(name, known)} on ${kind.name}`);
    }
    const reason = value === "" ? undefined : key.check(value);
    if (reason) throw new LidoError("bad_request", `Invalid value for option "${name}": ${reason}`);
  }
}

/** @param name For the message. @throws {LidoError} bad_request with LXD's texts. */
export function checkVolumeConfig(kind: DriverKind, name: string, config: Config): void {
  const keys = volumeKeys(kind);
  for (const [option, value] of Object.entries(config)) {
    if (isFree(option)) continue;
    const key = own(keys, option);
    if (!key) {
      const allowed = allowedKeys(option, [...Object.keys(keys), "user."]);
      throw new LidoError(
        "bad_request",
        `Invalid option for volume "${name}" option "${option}": ${allowed} on ${kind.name}`,
      );
    }
    const reason = value === "" ? undefined : key.check(value);
    if (reason) {
      const text = option === "size" ? `Invalid value: ${value}: a number with one of ${sizeUnits} is allowed` : reason;
      throw new LidoError("bad_request", `Invalid value for volume "${name}" option "${option}": ${text}`);
    }
  }
  if (isTrue(config["security.shifted"]) && isTrue(config["security.unmapped"])) {
    throw new LidoError("bad_request", "security.unmapped and security.shifted are mutually exclusive");
  }
}

/** Refuses changes of keys that are fixed at a volume's creation. @throws {LidoError} bad_request. */
export function checkVolumeChange(kind: DriverKind, before: Config, after: Config): void {
  for (const [option, key] of Object.entries(volumeKeys(kind))) {
    if (key.fixed && (before[option] ?? "") !== (after[option] ?? "")) {
      throw new LidoError("bad_request", `Option "${option}" cannot be changed after the volume was made`);
    }
  }
}

/** A new volume's settings: its own, and the pool's `volume.*` for other keys. */
export function withPoolDefaults(kind: DriverKind, pool: Config, config: Config): Config {
  const result = { ...config };
  for (const option of Object.keys(volumeKeys(kind))) {
    const inherited = pool[`volume.${option}`];
    if (result[option] === undefined && inherited) result[option] = inherited;
  }
  return Object.fromEntries(Object.entries(result).filter(([, value]) => value !== ""));
}

/** The settings that a copy or backup of a volume keeps on the target pool. Keys that only the source's driver has are dropped; so is the size of a
 * block volume, which always has one, where the target cannot limit volumes. */
export function carriedOver(config: Config, from: DriverKind | undefined, to: DriverKind, target: Driver): Config {
  const isLeft = (option: string) =>
    (from !== undefined && own(from.volumeKeys, option) && !own(volumeKeys(to), option)) ||
    (option === "size" && from?.isBlock && !target.facets.quota);
  return Object.fromEntries(Object.entries(config).filter(([option]) => !isLeft(option)));
}

/** @returns The bytes of `size`; undefined when there is no limit. */
export function sizeOf(config: Config): bigint | undefined {
  const bytes = config.size ? parseSizeBytes(config.size) : undefined;
  return bytes === 0n ? undefined : bytes;
}

function own(keys: Readonly<Record<string, ConfigKey>>, name: string): ConfigKey | undefined {
  return Object.hasOwn(keys, name) ? keys[name] : undefined;
}

/** Refuses a source that a known pool uses. A volume group or a ZFS pool may be given by its device or by its name, so both are compared.
 * @throws {LidoError} bad_request. */
export function refuseShared(database: Database, config: Config): void {
  for (const row of database.all("SELECT name, config FROM storage_pools")) {
    const other: Config = JSON.parse(String(row.config));
    const shared = ["source", "lvm.vg_name", "zfs.pool_name"].find((key) =>
      config[key] !== undefined && config[key] === other[key]
    );
    if (shared === undefined) continue;
    const what = { "source": "Source", "lvm.vg_name": "Volume group", "zfs.pool_name": "ZFS pool" }[shared];
    throw new LidoError("bad_request", `${what} "${config[shared]}" is in use by storage pool "${row.name}"`);
  }
}
