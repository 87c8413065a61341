/** The tables of configuration keys, for clients: for completion, forms and help. */
import type { ConfigurationMetadata, KeyMetadata } from "../../api/types.ts";
import type { ConfigKey, DriverKind } from "../../drivers/storage/driver.ts";
import { instanceKeys } from "../config/instance.ts";
import { deviceKeys } from "../config/devices.ts";
import { settingKeys } from "../state/settings.ts";
import { volumeKeys } from "../config/storage.ts";

type Check = ConfigKey["check"];

/** Derives a key's type from the values that its check accepts, so that the two cannot differ. */
function typeOf(check: Check): KeyMetadata["type"] {
  const takes = (value: string) => check(value) === undefined;
  if (takes("no such word")) return "string";
  // Names of hosts, snapshots and system calls may be any word, also "true" and "no".
  if (takes("true") && takes("no") && !takes("word")) return "bool";
  return takes("1") && !takes("1-2") && !takes("1kB") && !takes("auto") && !takes("word") ? "integer" : "string";
}

/** The metadata of a key; its type and allowed words are derived from its check. */
export function describe({ check, help, default: initial = "", values }: ConfigKey): KeyMetadata {
  const type = typeOf(check);
  // LXD's text for a value that is not in a list contains the list.
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

function describeAll(keys: Readonly<Record<string, ConfigKey>>): Keys {
  return Object.fromEntries(Object.entries(keys).map(([key, one]) => [key, describe(one)]));
}

/** @param kinds The storage drivers. */
export function configurationMetadata(kinds: Iterable<DriverKind>): ConfigurationMetadata {
  const byGroup: Record<string, Record<string, KeyMetadata>> = {};
  for (const [key, one] of Object.entries(instanceKeys())) (byGroup[key.split(".")[0]!] ??= {})[key] = describe(one);
  const instance = Object.fromEntries(Object.entries(byGroup).map(([name, keys]) => [name, group(keys)]));
  const devices = Object.entries(deviceKeys()).map(([type, keys]) => [
    `device-${type}`,
    { "device-conf": group(describeAll(keys)) },
  ]);
  const storage = [...kinds].map((kind) => [
    `storage-${kind.name}`,
    {
      "pool-conf": group(describeAll(kind.poolKeys)),
      "volume-conf": group(describeAll(volumeKeys(kind))),
    },
  ]);
  return {
    configs: {
      instance,
      server: { core: group(describeAll(settingKeys())) },
      ...Object.fromEntries(devices),
      ...Object.fromEntries(storage),
    },
  };
}
