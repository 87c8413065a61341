/** Checks and interprets devices as the user writes them. Nothing here touches the host. Error messages are LXD's. */

import { posix } from "node:path";
import { allowedKeys } from "../../api/allowed.ts";
import { LidoError } from "../../api/errors.ts";
import { parseSizeBytes, sizeUnits } from "../../api/size.ts";
import type { Config, Devices } from "../../api/types.ts";
import { mountOptionNames } from "../../drivers/host/mounts/mount_options.ts";
import type { ConfigKey } from "../../drivers/storage/driver.ts";
import { boolean, isTrue } from "./instance.ts";

const propagations = ["private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable"];

const anything = () => undefined;
const diskOptions: Readonly<Record<string, ConfigKey>> = {
  path: { check: anything, help: "Absolute path in the instance; `/` is the root disk" },
  pool: { check: anything, help: "Storage pool of the volume; that of a root disk cannot be changed" },
  propagation: {
    check: (value) =>
      propagations.includes(value) ? undefined : `Invalid value "${value}" (not one of [${propagations.join(" ")}])`,
    default: "rprivate",
    help: "How mounts below the path get from host to instance and back",
  },
  "raw.mount.options": {
    check: (value) => {
      const unknown = mountOptions(value).find((word) => !mountOptionNames.includes(word));
      return unknown === undefined
        ? undefined
        : `Cannot apply "${unknown}" to what is mounted already (not one of [${mountOptionNames.join(" ")}])`;
    },
    help: "Mount options, separated by commas",
  },
  readonly: { check: boolean, default: "false", help: "Whether the instance can only read it" },
  recursive: {
    check: boolean,
    default: "false",
    help: "Whether what is mounted below a path of the host is there too",
  },
  required: { check: boolean, default: "true", help: "Whether the instance does not start without the source" },
  shift: {
    check: boolean,
    default: "false",
    help: "Whether a path of the host gets the instance's id map, so that owners are the same on both sides",
  },
  size: {
    check: (value) =>
      parseSizeBytes(value) === undefined
        ? `Invalid value: ${value}: a number with one of ${sizeUnits} is allowed`
        : undefined,
    default: "no limit",
    help: "Limit on the size of the root disk",
  },
  source: {
    check: anything,
    help: "Absolute path on the host, or with `pool` the name of a custom volume, also with a path in it (`data/logs`)",
  },
  type: { check: anything, help: "Type of the device: `disk`, or `none`" },
};

/** The device types, and the keys of each. */
export function deviceKeys(): Readonly<Record<string, Readonly<Record<string, ConfigKey>>>> {
  const { type: _, ...disk } = diskOptions;
  return { disk, none: {} };
}

/** A disk device other than the root disk, parsed. */
export interface Disk {
  readonly device: string;
  /** A custom volume, and a path within it; absent for a path of the host. */
  readonly volume?: { readonly pool: string; readonly name: string; readonly subPath: string };
  /** For a path of the host. */
  readonly hostPath?: string;
  /** Absolute and normal, never "/". */
  readonly target: string;
  /** Mount options: "ro", "nosuid" and the like. */
  readonly options: readonly string[];
  readonly recursive: boolean;
  readonly shift: boolean;
  readonly required: boolean;
  readonly propagation?: string;
}

/** Checks the devices of one instance or profile by themselves.
 * @throws {LidoError} bad_request, `Invalid devices: Device validation failed for "x": …`. */
export function checkDevices(devices: Devices): void {
  const paths = countPaths(Object.values(devices));
  for (const [name, device] of sorted(devices)) {
    const reason = reasonAgainstName(name) ?? reasonAgainst(name, device) ?? reasonAgainstPath(device, paths);
    if (reason) {
      throw new LidoError("bad_request", `Invalid devices: Device validation failed for "${name}": ${reason}`);
    }
  }
}

/** Checks an instance's devices with those of its profiles: one device for each path, and no second root disk.
 * @throws {LidoError} bad_request. */
export function checkExpandedDevices(devices: Devices): void {
  const paths = countPaths(Object.values(devices).filter((device) => !isRoot(device)));
  for (const [name, device] of sorted(devices)) {
    const reason = isRoot(device) ? undefined : reasonAgainstPath(device, paths);
    if (reason) {
      throw new LidoError("bad_request", `Invalid expanded devices: Device validation failed for "${name}": ${reason}`);
    }
  }
  if (Object.values(devices).filter(isRoot).length > 1) {
    throw new LidoError(
      "bad_request",
      "Invalid expanded devices: Failed detecting root disk device: More than one root device found",
    );
  }
}

/** @returns Name and settings of the root disk. @throws {LidoError} bad_request when there is none, or more than one. */
export function rootDisk(devices: Devices): { name: string; device: Config } {
  const roots = Object.entries(devices).filter(([, device]) => isRoot(device));
  if (roots.length > 1) throw new LidoError("bad_request", "More than one root device found");
  const root = roots[0];
  if (!root) throw new LidoError("bad_request", "No root device could be found");
  return { name: root[0], device: root[1] };
}

export function isRoot(device: Config): boolean {
  return device.type === "disk" && device.path !== undefined && device.path !== "" && normal(device.path) === "/" &&
    !device.source;
}

/** @param own An instance's own devices, or a snapshot's. @param expanded With those of its profiles. @param fallback Devices whose root disk is used
 * when there is none. @returns The own devices, changed so that the root disk is on `pool`. */
export function rootOn(pool: string, own: Devices, expanded: Devices, fallback: Devices = {}): Devices {
  const rootOf = (devices: Devices) => Object.entries(devices).find(([, device]) => isRoot(device));
  const present = rootOf(own) ?? rootOf(expanded);
  if (present?.[1].pool === pool) return own;
  // Under the name of the profile's root disk, which it overrides.
  const name = present?.[0] ?? freeName("root", own);
  return { ...own, [name]: { type: "disk", path: "/", ...(present ?? rootOf(fallback))?.[1], pool } };
}

/** @returns `name`, with a number appended if it is taken. */
export function freeName(name: string, devices: Devices): string {
  if (devices[name] === undefined) return name;
  for (let number = 0;; number++) if (devices[`${name}${number}`] === undefined) return `${name}${number}`;
}

/** The disks to mount, parents before children. @param devices Expanded and checked. */
export function disksOf(devices: Devices): Disk[] {
  return Object.entries(devices)
    .filter(([, device]) => device.type === "disk" && !isRoot(device))
    .map(([name, device]) => toDisk(name, device))
    .sort((a, b) => depth(a.target) - depth(b.target) || (a.target < b.target ? -1 : 1));
}

/** Whether two devices are equal; an empty value is as an absent one. */
export function sameDevice(a: Config | undefined, b: Config | undefined): boolean {
  const text = (device: Config | undefined): string =>
    JSON.stringify(Object.entries(device ?? {}).filter(([, value]) => value !== "").sort());
  return text(a) === text(b);
}

function toDisk(name: string, device: Config): Disk {
  const slash = (device.source ?? "").indexOf("/");
  const volumeName = slash < 0 ? device.source! : device.source!.slice(0, slash);
  return {
    device: name,
    ...(device.pool
      ? { volume: { pool: device.pool, name: volumeName, subPath: slash < 0 ? "" : device.source!.slice(slash + 1) } }
      : { hostPath: device.source! }),
    target: normal(device.path!),
    options: [...mountOptions(device["raw.mount.options"] ?? ""), ...(isTrue(device.readonly) ? ["ro"] : [])],
    recursive: isTrue(device.recursive),
    shift: isTrue(device.shift),
    required: device.required === undefined || device.required === "" || isTrue(device.required),
    ...(device.propagation ? { propagation: device.propagation } : {}),
  };
}

const mountOptions = (text: string): string[] => text.split(",").map((word) => word.trim()).filter(Boolean);

const depth = (path: string): number => path.split("/").length;

/** A path as the container will see it: ".." cannot leave "/". */
function normal(path: string): string {
  const normalized = posix.normalize(path);
  return normalized.length > 1 && normalized.endsWith("/") ? normalized.slice(0, -1) : normalized;
}

function reasonAgainstName(name: string): string | undefined {
  if (name.length < 1 || name.length > 64) return "Name must be 1-64 characters long";
  return /^[A-Za-z0-9/:_.-]+$/.test(name)
    ? undefined
    : "Name can only contain alphanumeric, forward slash, hyphen, colon, underscore and full stop characters";
}

function reasonAgainst(name: string, device: Config): string | undefined {
  if (device.type === "none") {
    const key = Object.keys(device).find((one) => one !== "type");
    return key === undefined ? undefined : `Invalid device option "${key}": a device of type "none" has no options`;
  }
  if (device.type !== "disk") {
    return `Failed loading device "${name}": Unsupported device type: disk or none is allowed`;
  }
  for (const [key, value] of Object.entries(device)) {
    const check = Object.hasOwn(diskOptions, key) ? diskOptions[key]!.check : undefined;
    if (!check) return `Invalid device option "${key}": ${allowedKeys(key, Object.keys(diskOptions))}`;
    const reason = value === "" ? undefined : check(value);
    if (reason) return `Invalid value for device option "${key}": ${reason}`;
    if (value.includes("\0")) return `Invalid value for device option "${key}": it has a NUL byte`;
  }
  const path = device.path ?? "";
  const source = device.source ?? "";
  if (path !== "" && normal(path) === "/") {
    if (source) return 'Root disk entry may not have a "source" property set';
    if (!device.pool) return 'Root disk entry must have a "pool" property set';
    if (isTrue(device.recursive)) {
      return "The recursive option is only supported for additional bind-mounted paths";
    }
    return undefined;
  }
  if (!source) return 'Disk entry is missing the required "source" or "path" property';
  if (!path) {
    return device.pool
      ? "Custom filesystem volumes require a path to be defined"
      : 'Disk entry is missing the required "source" or "path" property';
  }
  if (!path.startsWith("/")) return `Invalid value for device option "path": Must be an absolute path: "${path}"`;
  if (device.size) return "Only the root disk may have a size quota";
  if (device.pool) {
    if (isTrue(device.recursive)) {
      return "The recursive option is only supported for additional bind-mounted paths";
    }
    if (source.startsWith("/")) return "Storage volumes cannot be specified as absolute paths";
    if (source.split("/").some((part) => part === "" || part === "." || part === "..")) {
      return `Invalid value for device option "source": Not a path within a volume: "${source}"`;
    }
    if (isTrue(device.shift)) {
      return 'The "shift" property cannot be used with custom storage volumes (set "security.shifted=true" on the volume instead)';
    }
  } else if (!source.startsWith("/")) return "Source path must be absolute for local sources";
  return undefined;
}

/** By name, so that of two invalid devices the first is reported, as in LXD. */
function sorted(devices: Devices): [string, Config][] {
  return Object.entries(devices).sort(([left], [right]) => left < right ? -1 : 1);
}

function countPaths(devices: readonly Config[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const device of devices) {
    if (device.type !== "disk" || !device.path) continue;
    const path = normal(device.path);
    counts.set(path, (counts.get(path) ?? 0) + 1);
  }
  return counts;
}

function reasonAgainstPath(device: Config, counts: ReadonlyMap<string, number>): string | undefined {
  if (device.type !== "disk" || !device.path) return undefined;
  const path = normal(device.path);
  return counts.get(path)! > 1 ? `More than one disk device uses the same path "${path}"` : undefined;
}
