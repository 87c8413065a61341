/** Columns and filters of `lido list`. */
import type { InstanceFull } from "../../api/types.ts";
import { UsageError } from "../client/errors.ts";
import { showBytes } from "../../api/size.ts";
import { shortDate } from "./units.ts";

export interface Column {
  title: string;
  /** Whether the column needs the instance's state or snapshots. */
  full: boolean;
  value(instance: InstanceFull): string;
}

interface Address {
  family?: string;
  address?: string;
  scope?: string;
}

function addresses(instance: InstanceFull, family: string): string {
  const network = (instance.state?.network ?? {}) as Record<string, { addresses?: Address[] | null }>;
  return Object.entries(network).filter(([name]) => name !== "lo").flatMap(([name, device]) =>
    (device.addresses ?? [])
      .filter((address) => address.family === family && address.scope !== "link" && address.scope !== "local")
      .map((address) => `${address.address} (${name})`)
  ).join("\n");
}

function rootDisk(instance: InstanceFull): [string, Record<string, string>] | undefined {
  return Object.entries(instance.expanded_devices).find(([, device]) => device.type === "disk" && device.path === "/");
}

const plain = (title: string, value: Column["value"]): Column => ({ title, full: false, value });
const full = (title: string, value: Column["value"]): Column => ({ title, full: true, value });

const letters: Readonly<Record<string, Column>> = {
  "4": full("IPV4", (instance) => addresses(instance, "inet")),
  "6": full("IPV6", (instance) => addresses(instance, "inet6")),
  a: plain("ARCHITECTURE", (instance) => instance.architecture),
  b: plain("STORAGE POOL", (instance) => rootDisk(instance)?.[1].pool ?? ""),
  c: plain("CREATED AT", (instance) => shortDate(instance.created_at)),
  d: plain("DESCRIPTION", (instance) => instance.description),
  D: full("DISK USAGE", (instance) => {
    const usage = instance.state?.disk?.[rootDisk(instance)?.[0] ?? ""]?.usage ?? 0;
    return usage > 0 ? showBytes(usage) : "";
  }),
  e: plain("PROJECT", (instance) => instance.project),
  f: plain("BASE IMAGE", (instance) => (instance.config["volatile.base_image"] ?? "").slice(0, 12)),
  F: plain("BASE IMAGE", (instance) => instance.config["volatile.base_image"] ?? ""),
  l: plain("LAST USED AT", (instance) => shortDate(instance.last_used_at)),
  L: plain("LOCATION", (instance) => instance.location),
  m: full("MEMORY USAGE", (instance) => {
    const usage = instance.state?.memory.usage ?? 0;
    return instance.state?.status_code === 103 && usage > 0 ? showBytes(usage) : "";
  }),
  n: plain("NAME", (instance) => instance.name),
  N: full("PROCESSES", (instance) => instance.state?.status_code === 103 ? String(instance.state.processes) : ""),
  p: full("PID", (instance) => instance.state?.status_code === 103 ? String(instance.state.pid) : ""),
  P: plain("PROFILES", (instance) => instance.profiles.join("\n")),
  s: plain("STATE", (instance) => instance.status.toUpperCase()),
  S: full("SNAPSHOTS", (instance) => String(instance.snapshots?.length ?? 0)),
  t: plain("TYPE", (instance) => {
    const type = instance.type === "virtual-machine" ? "VIRTUAL-MACHINE" : "CONTAINER";
    return instance.ephemeral ? `${type} (EPHEMERAL)` : type;
  }),
  u: full("CPU USAGE", (instance) => {
    const usage = instance.state?.cpu.usage ?? 0;
    return instance.state?.status_code === 103 && usage > 0 ? `${Math.floor(usage / 1e9)}s` : "";
  }),
};

/** The title for each letter of `--columns`. */
export const columnTitles = (): [letter: string, title: string][] =>
  Object.entries(letters).map(([letter, { title }]) => [letter, title]);

/** A column defined by the user: `[config:|devices:]key[:title[:width]]`. */
function ownColumn(text: string): Column {
  const device = text.startsWith("devices:");
  const [key = "", title = "", width] = text.replace(/^(config|devices):/, "").split(":");
  if (key === "" || (device && !key.includes("."))) {
    throw new UsageError(`Invalid column "${text}": must be [config:|devices:]key[:title[:width]]`);
  }
  const heading = title === "" ? key : title;
  const most = width === undefined || width === "-1" ? Infinity : width === "0" ? heading.length : Number(width);
  if (Number.isNaN(most) || most < 0) throw new UsageError(`Invalid max width "${width}" (must be an integer)`);
  return plain(heading.toUpperCase(), (instance) => {
    const dot = key.indexOf(".");
    const value = device
      ? instance.expanded_devices[key.slice(0, dot)]?.[key.slice(dot + 1)]
      : instance.expanded_config[key];
    return (value ?? "").slice(0, most);
  });
}

/** The columns that `-c` asks for.
 * @throws {UsageError} If one is unknown. */
export function instanceColumns(layout: string): Column[] {
  return layout.split(",").flatMap((part) => {
    if (part === "") throw new UsageError(`Empty column entry (redundant, leading or trailing command) in "${layout}"`);
    if (/[.:]/.test(part)) return [ownColumn(part)];
    return [...part].map((letter) => {
      const column = Object.hasOwn(letters, letter) ? letters[letter] : undefined;
      if (column === undefined) {
        const allowed = Object.keys(letters).join(" ");
        throw new UsageError(`Unknown column shorthand char "${letter}" in "${part}": ${allowed} are allowed`);
      }
      return column;
    });
  });
}

/** Whether a shortened key matches: `s.privileged` stands for `security.privileged`, each part may be shortened. */
function keyFits(short: string, key: string): boolean {
  const shortParts = short.split(".");
  const parts = key.split(".");
  return shortParts.length === parts.length &&
    shortParts.every((part, index) => parts[index]?.startsWith(part) ?? false);
}

function anchored(pattern: string, text: string): boolean {
  try {
    return new RegExp(`^(?:${pattern})$`).test(text);
  } catch {
    return false;
  }
}

/** Whether an instance passes every filter. */
export function matches(instance: InstanceFull, filters: readonly string[]): boolean {
  return filters.every((filter) => {
    const equals = filter.indexOf("=");
    if (equals < 0) return instance.name.startsWith(filter) || anchored(filter, instance.name);
    const key = filter.slice(0, equals).toLowerCase();
    const value = filter.slice(equals + 1);
    const oneOf = (actual: string) => value.toLowerCase().split(",").includes(actual.toLowerCase());
    if (key === "type") return oneOf(instance.type);
    if (key === "status") return oneOf(instance.status);
    if (key === "architecture") return oneOf(instance.architecture);
    if (key === "location") return oneOf(instance.location);
    if (key === "name") return anchored(value, instance.name);
    return Object.entries(instance.expanded_config).some(([name, actual]) =>
      keyFits(key, name) && (actual === value || anchored(value, actual))
    );
  });
}
