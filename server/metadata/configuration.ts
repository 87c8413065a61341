/** The tables that configuration is checked with, told to clients: for completion, forms and help. */
import type { ConfigurationMetadata, KeyMetadata } from "../../api/types.ts";
import type { ConfigKey, DriverKind } from "../../drivers/storage/driver.ts";
import { instanceKeys } from "../config/instance.ts";
import { deviceKeys } from "../config/devices.ts";
import { settingKeys } from "../state/settings.ts";
import { volumeKeys } from "../config/storage.ts";

/** @returns The reason when a value is not allowed. */
type Check = (value: string) => string | undefined;

/** A check is asked for what it takes, so that no type can be written beside it that is not so. */
function typeOf(check: Check): KeyMetadata["type"] {
  const takes = (value: string) => check(value) === undefined;
  if (takes("no such word")) return "string";
  if (takes("true") && takes("no")) return "bool";
  return takes("1") && takes("20") && !takes("1-2") && !takes("1kB") && !takes("auto") ? "integer" : "string";
}

function describe(check: Check, help: string, initial = "", values?: readonly string[]): KeyMetadata {
  const type = typeOf(check);
  // LXD's words for a value that is none of a list.
  const listed = / \(not one of \[([^\]]+)\]\)/.exec(check("no such word") ?? "")?.[1]?.split(" ");
  const words = values ?? listed ?? (type === "bool" ? ["true", "false"] : undefined);
  return { type, defaultdesc: initial, shortdesc: help, ...(words ? { values: [...words] } : {}) };
}

type Keys = Readonly<Record<string, KeyMetadata>>;

function group(keys: Keys) {
  return {
    keys: Object.entries(keys).sort(([left], [right]) => left < right ? -1 : 1).map(([key, one]) => ({ [key]: one })),
  };
}

function storageKeys(keys: Readonly<Record<string, ConfigKey>>): Keys {
  return Object.fromEntries(
    Object.entries(keys).map(([key, { check, help, default: initial, values }]) => [
      key,
      describe(check, help, initial, values),
    ]),
  );
}

/** @param kinds The storage drivers. */
export function configurationMetadata(kinds: Iterable<DriverKind>): ConfigurationMetadata {
  const byGroup: Record<string, Record<string, KeyMetadata>> = {};
  for (const [key, check] of Object.entries(instanceKeys())) {
    (byGroup[key.split(".")[0]!] ??= {})[key] = describe(check, "");
  }
  const instance = Object.fromEntries(Object.entries(byGroup).map(([name, keys]) => [name, group(keys)]));
  const devices = Object.entries(deviceKeys()).map(([type, keys]) => {
    const described = Object.entries(keys).map(([key, check]) => [key, describe(check, "")]);
    return [`device-${type}`, { "device-conf": group(Object.fromEntries(described)) }];
  });
  const storage = [...kinds].map((kind) => [
    `storage-${kind.name}`,
    {
      "pool-conf": group(storageKeys(kind.poolKeys)),
      "volume-conf": group(storageKeys(volumeKeys(kind))),
    },
  ]);
  const server = Object.entries(settingKeys()).map(([key, { check, allowed }]) => [
    key,
    describe((value) => check(value) ? undefined : allowed, allowed),
  ]);
  return {
    configs: {
      instance,
      server: { core: group(Object.fromEntries(server)) },
      ...Object.fromEntries(devices),
      ...Object.fromEntries(storage),
    },
  };
}
