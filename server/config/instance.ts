/** The configuration keys that an instance (or a profile) may have, and how their values are checked. Names, values and texts are LXD's.
 * A key that lido does not act on is not in the table, so that nobody believes in a limit that is not there. */

import { allowedKeys } from "../../api/allowed.ts";
import { LidoError, messageOf } from "../../api/errors.ts";
import { parseSizeBytes, sizeUnits } from "../../api/size.ts";
import type { Config } from "../../api/types.ts";
import { onlineCpus, parseCpus } from "../../drivers/runtime/cgroups/limits.ts";
import { parseHostileYaml } from "../archives/hostile_yaml.ts";
import { checkSyscalls, syscallKeys } from "./syscalls.ts";
import { isFalse, isTrue } from "./words.ts";

export { isFalse, isTrue } from "./words.ts";

/** @returns The reason when the value is not allowed. */
type Check = (value: string) => string | undefined;

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

/** What a kernel takes in pids.max. @see PID_MAX_LIMIT in include/linux/threads.h */
const processesMax = 4_194_304;
/** LXD takes any integer, writes -1 as "max", and fails to start with what is less. */
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
/** Only looked at: what is in it is the guest's. */
const yaml: Check = (value) => {
  try {
    parseHostileYaml(value);
    return undefined;
  } catch (error) {
    return `Invalid YAML: ${messageOf(error).split("\n")[0]}`;
  }
};
/** Scripts and archives are cloud-init's, too. */
const cloudConfig: Check = (value) => value.startsWith("#cloud-config\n") ? yaml(value) : undefined;
const priority: Check = (value) =>
  /^(\d|10)$/.test(value) ? undefined : `Invalid value for a limit "${value}". Must be between 0 and 10`;
/** The kernel's for cpu.cfs_period_us. @see Documentation/scheduler/sched-bwc.rst of the kernel */
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

const keys: Readonly<Record<string, Check>> = {
  "boot.autostart": boolean,
  "boot.autostart.delay": integer,
  "boot.autostart.priority": integer,
  "cloud-init.network-config": yaml,
  "cloud-init.user-data": cloudConfig,
  "cloud-init.vendor-data": cloudConfig,
  "limits.cpu": cpus,
  "limits.cpu.allowance": allowance,
  "limits.cpu.priority": priority,
  "limits.disk.priority": priority,
  "limits.hugepages.1GB": size,
  "limits.hugepages.1MB": size,
  "limits.hugepages.2MB": size,
  "limits.hugepages.64KB": size,
  "limits.memory": memory,
  "limits.memory.enforce": enforcement,
  "limits.memory.swap": boolean,
  "limits.memory.swap.priority": priority,
  "limits.processes": processes,
  "raw.idmap": anything,
  "security.devlxd": boolean,
  "security.idmap.base": uint32,
  "security.idmap.isolated": boolean,
  "security.idmap.size": isolatedSize,
  "security.nesting": boolean,
  "security.privileged": boolean,
  "security.protection.delete": boolean,
  "security.protection.shift": boolean,
  ...syscallKeys(boolean),
  "volatile.apply_template": anything,
  "volatile.base_image": anything,
  "volatile.cloud-init.instance-id": uuid,
  "volatile.idmap.base": anything,
  "volatile.idmap.current": anything,
  "volatile.idmap.next": anything,
  "volatile.last_state.idmap": anything,
  "volatile.last_state.power": anything,
  "volatile.uuid": uuid,
};
const prefixes: readonly string[] = ["user.", "image.", "environment."];

/** The keys a user may set, with their checks; the daemon's own (`volatile.*`) are left out. */
export function instanceKeys(): Readonly<Record<string, Check>> {
  return Object.fromEntries(Object.entries(keys).filter(([key]) => !key.startsWith("volatile.")));
}

/** Checks every key and value of an instance's or a profile's configuration.
 * @throws {LidoError} bad_request with LXD's text, without the operation's prefix. */
export function checkInstanceConfig(config: Config): void {
  for (const [key, value] of Object.entries(config)) {
    const check = (Object.hasOwn(keys, key) ? keys[key] : undefined) ??
      (prefixes.some((prefix) => key.startsWith(prefix) && key !== prefix) ? anything : undefined);
    if (!check) {
      const known = [...Object.keys(instanceKeys()), ...prefixes];
      throw new LidoError("bad_request", `Unknown configuration key: ${key}: ${allowedKeys(key, known)}`);
    }
    if (value === "") continue;
    const reason = check(value);
    if (reason) throw new LidoError("bad_request", `Invalid value for configuration key "${key}": ${reason}`);
  }
  checkSyscalls(config);
}

/** Checks the values that are new against this host. Not for profiles: they may be meant for other hosts. @throws {LidoError} bad_request. */
export function checkForHost(config: Config, before: Config = {}): void {
  const asked = config["limits.cpu"];
  if (!asked || asked === before["limits.cpu"] || /^\d+$/.test(asked)) return;
  // As in LXD, some of a set may be absent.
  const online = onlineCpus();
  if (parseCpus(asked).some((cpu) => parseCpus(online).includes(cpu))) return;
  throw new LidoError("bad_request", `Cannot apply limits.cpu "${asked}": the CPUs ${online} are there`);
}

/** Checks a profile's configuration: as an instance's, but nothing that belongs to one instance alone. @throws {LidoError} bad_request. */
export function checkProfileConfig(config: Config): void {
  for (const key of Object.keys(config)) {
    if (key.startsWith("volatile.")) throw new LidoError("bad_request", "Volatile keys can only be set on instances");
    if (key.startsWith("image.")) throw new LidoError("bad_request", "Image keys can only be set on instances");
  }
  checkInstanceConfig(config);
}
