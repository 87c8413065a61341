/** The configuration keys that an instance (or a profile) may have, and how their values are checked. Names, values and messages are LXD's.
 * A key that lido does not act on is not in the table, so that no user relies on a limit that is not enforced. */

import { allowedKeys } from "../../api/allowed.ts";
import { LidoError, messageOf } from "../../api/errors.ts";
import { parseSizeBytes, sizeUnits } from "../../api/size.ts";
import type { Config } from "../../api/types.ts";
import { onlineCpus, parseCpus } from "../../drivers/runtime/cgroups/limits.ts";
import { parseHostileYaml } from "../archives/hostile_yaml.ts";
import type { ConfigKey } from "../../drivers/storage/driver.ts";
import { checkSyscalls, syscallKeys } from "./syscalls.ts";
import { isFalse, isTrue } from "./words.ts";

export { isFalse, isTrue } from "./words.ts";

type Check = ConfigKey["check"];

export const boolean: Check = (value) =>
  isTrue(value) || isFalse(value)
    ? undefined
    : `Invalid value for a boolean "${value}": true or false (1, yes, on, 0, no, off) is allowed`;
const integer: Check = (value) => /^-?\d{1,18}$/.test(value) ? undefined : `Invalid value for an integer "${value}"`;
const uint32: Check = (value) => {
  if (!/^\d+$/.test(value)) {
    return `Invalid value for uint32 "${value}": strconv.ParseUint: parsing "${value}": invalid syntax`;
  }
  return Number(value) <= 4294967295
    ? undefined
    : `Invalid value for uint32 "${value}": strconv.ParseUint: parsing "${value}": value out of range`;
};
const anything: Check = () => undefined;
const uuid: Check = (value) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value) ? undefined : "Invalid UUID";

/** The kernel's maximum for pids.max. @see PID_MAX_LIMIT in include/linux/threads.h */
const processesMax = 4_194_304;
/** LXD takes any integer, writes -1 as "max", and fails to start with a smaller one. */
const processes: Check = (value) =>
  integer(value) ??
    (Number(value) >= -1 && Number(value) <= processesMax
      ? undefined
      : `Invalid value for a limit "${value}": 0 to ${processesMax}, or -1 for none, is allowed`);

/** No init starts with less; the kernel would kill it, or crun before it. */
const memoryBytesMin = 512n << 10n;
const memory: Check = (value) => {
  if (/^0+%?$/.test(value) || parseSizeBytes(value) === 0n) return `Memory limit can't be ${value}`;
  const isAmount = /^\d{1,3}%$/.test(value) ? Number(value.slice(0, -1)) <= 100 : parseSizeBytes(value) !== undefined;
  if (!value.endsWith("%") && isAmount && parseSizeBytes(value)! < memoryBytesMin) {
    return `Memory limit can't be ${value}: at least 512KiB is allowed`;
  }
  return isAmount
    ? undefined
    : `Invalid value: ${value}: a size such as 512MiB (${sizeUnits}) or 0% to 100% is allowed`;
};
const cpus: Check = (value) => {
  const invalid =
    `Invalid CPU limit syntax: a number of CPUs, or a set of them as in 0-3,5, is allowed; given "${value}"`;
  if (/^\d{1,5}$/.test(value)) return value === "0" ? invalid : undefined;
  const isSet = value.split(",").every((part) => {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part);
    return match !== null && (match[2] === undefined || Number(match[2]) >= Number(match[1]));
  });
  if (!isSet) return invalid;
  const all = parseCpus(value);
  return new Set(all).size === all.length ? undefined : "Cannot define CPU multiple times";
};
/** Only the syntax is checked: the content is for the guest. */
const yaml: Check = (value) => {
  try {
    parseHostileYaml(value);
    return undefined;
  } catch (error) {
    return `Invalid YAML: ${messageOf(error).split("\n")[0]}`;
  }
};
/** Only cloud-config is checked: cloud-init takes scripts and archives, too. */
const cloudConfig: Check = (value) => value.startsWith("#cloud-config\n") ? yaml(value) : undefined;
const priority: Check = (value) =>
  /^(\d|10)$/.test(value) ? undefined : `Invalid value for a limit "${value}". Must be between 0 and 10`;
/** The kernel's maximum for cpu.cfs_period_us. @see Documentation/scheduler/sched-bwc.rst of the kernel */
const periodMsMax = 1000;
const allowance: Check = (value) => {
  const match = /^(?:[1-9]\d{0,2}%|[1-9]\d{0,5}ms\/([1-9]\d{0,5})ms)$/.exec(value);
  if (!match) {
    return `Invalid allowance: ${value}: a share such as 50%, or a time of each period such as 25ms/100ms, is allowed`;
  }
  return Number(match[1] ?? 0) <= periodMsMax
    ? undefined
    : `Invalid allowance: ${value}: a period of at most ${periodMsMax}ms is allowed`;
};
const size: Check = (value) =>
  parseSizeBytes(value) === undefined
    ? `Invalid value: ${value}: a size such as 64MiB (${sizeUnits}) is allowed`
    : undefined;
const enforcement: Check = (value) =>
  value === "soft" || value === "hard" ? undefined : `Invalid value "${value}" (not one of [soft hard])`;
const isolatedSize: Check = (value) => value === "auto" ? undefined : uint32(value);

const hugepages = (pages: string): ConfigKey => ({
  check: size,
  default: "no limit",
  help: `Limit on huge pages of ${pages}`,
});

const keys: Readonly<Record<string, ConfigKey>> = {
  "boot.autostart": {
    check: boolean,
    default: "what it was when the daemon ended",
    help: "Whether the instance is started with the daemon",
  },
  "boot.autostart.delay": {
    check: integer,
    default: "0",
    help: "Seconds to wait after its start before the next instance is started with the daemon",
  },
  "boot.autostart.priority": {
    check: integer,
    default: "0",
    help: "Instances with a higher number are started earlier with the daemon",
  },
  "cloud-init.network-config": { check: yaml, help: "cloud-init's network configuration; read at the next boot" },
  "cloud-init.user-data": { check: cloudConfig, help: "cloud-init's user data; read at the next boot" },
  "cloud-init.vendor-data": { check: cloudConfig, help: "cloud-init's vendor data; read at the next boot" },
  "limits.cpu": { check: cpus, default: "all CPUs", help: "Number of CPUs, or a set of them such as 0-3,5" },
  "limits.cpu.allowance": {
    check: allowance,
    default: "100%",
    help: "Share of CPU time when CPUs are scarce (50%), or time of each period as a hard limit (25ms/100ms)",
  },
  "limits.cpu.priority": {
    check: priority,
    default: "10",
    help: "Priority from 0 to 10 among instances with the same share of CPU time",
  },
  "limits.disk.priority": { check: priority, default: "5", help: "Priority of disk I/O under load, from 0 to 10" },
  "limits.hugepages.1GB": hugepages("1 GB"),
  "limits.hugepages.1MB": hugepages("1 MB"),
  "limits.hugepages.2MB": hugepages("2 MB"),
  "limits.hugepages.64KB": hugepages("64 KB"),
  "limits.memory": {
    check: memory,
    default: "no limit",
    help: "Limit on memory, as a size or a percentage of the host's",
  },
  "limits.memory.enforce": {
    check: enforcement,
    default: "hard",
    help: "hard: never more than the limit; soft: more while the host has free memory",
  },
  "limits.memory.swap": { check: boolean, default: "true", help: "Whether the instance may be swapped out" },
  "limits.memory.swap.priority": {
    check: priority,
    default: "10",
    help: "The higher (0 to 10), the less likely the instance is swapped out",
  },
  "limits.processes": { check: processes, default: "no limit", help: "Limit on processes and threads; -1 for none" },
  "raw.idmap": {
    check: anything,
    effect: "next start",
    help: "Host ids that the instance gets as they are: lines such as `both 1000 1000`, `uid 1000-1003 1000-1003`",
  },
  "security.devlxd": {
    check: boolean,
    default: "true",
    help: "Whether the instance has the guest API, `/dev/lxd/sock`",
  },
  "security.idmap.base": {
    check: uint32,
    effect: "next start",
    default: "chosen by the daemon",
    help: "First host id of an isolated id map",
  },
  "security.idmap.isolated": {
    check: boolean,
    effect: "next start",
    default: "false",
    help: "Whether the instance has an id map that no other instance has",
  },
  "security.idmap.size": {
    check: isolatedSize,
    effect: "next start",
    default: "auto",
    help: "Number of ids of an isolated id map; auto is 65536",
  },
  "security.nesting": {
    check: boolean,
    effect: "next start",
    default: "false",
    help: "Whether containers can be run in the instance",
  },
  "security.privileged": {
    check: boolean,
    effect: "next start",
    default: "false",
    help: "Whether the instance runs without an id map: its root is the host's root",
  },
  "security.protection.delete": { check: boolean, default: "false", help: "Whether the instance cannot be deleted" },
  "security.protection.shift": {
    check: boolean,
    default: "false",
    help: "Whether a change of the id map that has to change the owners of all files is refused",
  },
  ...syscallKeys(boolean),
};

/** Keys in which the daemon keeps state of an instance. */
const volatileKeys: Readonly<Record<string, ConfigKey>> = {
  "volatile.apply_template": { check: anything, help: "Event whose templates are applied at the next start" },
  "volatile.base_image": { check: anything, help: "Fingerprint of the image the instance was created from" },
  "volatile.cloud-init.instance-id": {
    check: uuid,
    help: "Id of the instance for cloud-init: with another one it runs anew",
  },
  "volatile.idmap.base": { check: anything, help: "First host id of the instance's id map; 0 unless it is isolated" },
  "volatile.idmap.current": { check: anything, help: "Id map the instance runs with" },
  "volatile.idmap.next": { check: anything, help: "Id map of the next start" },
  "volatile.last_state.idmap": { check: anything, help: "Id map that the owners of its files are in" },
  "volatile.last_state.power": { check: anything, help: "Whether the instance was running when the daemon ended" },
  "volatile.uuid": { check: uuid, help: "Id of the instance that a rename does not change" },
};

/** Prefixes of keys that may have any further name, and any value. */
const prefixes: Readonly<Record<string, Pick<ConfigKey, "help" | "effect">>> = {
  "environment.": { help: "Environment variable of the init (from the next start on) and of commands by exec" },
  "image.": { help: "Property of the image the instance was created from; not in profiles" },
  "user.": { help: "The user's own; the instance can read it by the guest API" },
};

/** The keys a user may set, with their checks; the daemon's own (`volatile.*`) are left out. */
export function instanceKeys(): Readonly<Record<string, ConfigKey>> {
  return keys;
}

/** The daemon's own keys of an instance, and the prefixes of keys that take any value: for the reference. */
export const otherInstanceKeys = { volatile: volatileKeys, prefixes } as const;

function checkOf(key: string): Check | undefined {
  for (const table of [keys, volatileKeys]) if (Object.hasOwn(table, key)) return table[key]!.check;
  return Object.keys(prefixes).some((prefix) => key.startsWith(prefix) && key !== prefix) ? anything : undefined;
}

/** Checks every key and value of an instance's or a profile's configuration.
 * @throws {LidoError} bad_request with LXD's text, without the operation's prefix. */
export function checkInstanceConfig(config: Config): void {
  for (const [key, value] of Object.entries(config)) {
    const check = checkOf(key);
    if (!check) {
      const known = [...Object.keys(keys), ...Object.keys(prefixes)];
      throw new LidoError("bad_request", `Unknown configuration key: ${key}: ${allowedKeys(key, known)}`);
    }
    if (value === "") continue;
    const reason = check(value);
    if (reason) throw new LidoError("bad_request", `Invalid value for configuration key "${key}": ${reason}`);
  }
  checkSyscalls(config);
}

/** Checks the changed values against this host. Not for profiles: they may be meant for other hosts. @throws {LidoError} bad_request. */
export function checkForHost(config: Config, before: Config = {}): void {
  const asked = config["limits.cpu"];
  if (!asked || asked === before["limits.cpu"] || /^\d+$/.test(asked)) return;
  // As in LXD, some CPUs of a set may be offline.
  const online = onlineCpus();
  if (parseCpus(asked).some((cpu) => parseCpus(online).includes(cpu))) return;
  throw new LidoError("bad_request", `Cannot apply limits.cpu "${asked}": the CPUs ${online} are there`);
}

/** Checks a profile's configuration: as an instance's, but without the keys that belong to one instance. @throws {LidoError} bad_request. */
export function checkProfileConfig(config: Config): void {
  for (const key of Object.keys(config)) {
    if (key.startsWith("volatile.")) throw new LidoError("bad_request", "Volatile keys can only be set on instances");
    if (key.startsWith("image.")) throw new LidoError("bad_request", "Image keys can only be set on instances");
  }
  checkInstanceConfig(config);
}
