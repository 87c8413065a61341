import { isAbsolute } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import type { Pool } from "../driver.ts";

/** What a pool is made on: a file of ours, devices, or an existing pool or dataset. */
export type Source =
  | { readonly is: "file" }
  | {
    readonly is: "devices";
    readonly devices: readonly string[]; /** Words of `zpool create`. */
    readonly vdevs: readonly string[];
  }
  | { readonly is: "existing"; readonly dataset: string };

/** Kind of redundancy → least number of devices. */
const leastDevices: Readonly<Record<string, number>> = { stripe: 1, mirror: 2, raidz1: 2, raidz2: 3, raidz3: 4 };

/** Does not look at the host. @throws {LidoError} bad_request when the source has no valid form. */
export function sourceOf(pool: Pool): Source {
  const source = pool.config.source ?? "";
  if (source === "" || source === pool.diskFile) return { is: "file" };
  const match = /^([^/=]*)=(.*)$/.exec(source);
  if (!match && !source.includes(",") && !isAbsolute(source)) return { is: "existing", dataset: source };
  const [type, list] = match ? [match[1]!, match[2]!] : ["stripe", source];
  if (!Object.hasOwn(leastDevices, type)) {
    const allowed = Object.keys(leastDevices).join(", ");
    throw new LidoError("bad_request", `Unsupported ZFS vdev type "${type}": ${allowed} are allowed`);
  }
  const devices = list.split(",");
  const repeated = devices.find((device, index) => devices.indexOf(device) !== index);
  if (repeated !== undefined) {
    throw new LidoError("bad_request", `Invalid source "${source}": "${repeated}" is named twice`);
  }
  for (const device of devices) {
    if (!isAbsolute(device)) throw new LidoError("bad_request", `Source path '${device}' isn't absolute`);
  }
  if (devices.length < leastDevices[type]!) {
    throw new LidoError(
      "bad_request",
      `Invalid source "${source}": ${type} needs ${leastDevices[type]} devices, ${devices.length} are given`,
    );
  }
  return { is: "devices", devices, vdevs: [...(type === "stripe" ? [] : [type]), ...devices] };
}

const reserved = /^(mirror|raidz|draid|spare|log$)|^c\d/;

/** @throws {LidoError} bad_request when ZFS does not allow the name. @see zpool-create(8) */
export function checkPoolName(name: string): void {
  if (/^[A-Za-z][\w.:-]*$/.test(name) && !reserved.test(name)) return;
  throw new LidoError(
    "bad_request",
    `Invalid ZFS pool name "${name}": a letter, then letters, digits and . _ : - are allowed, and no "mirror", "raidz", ` +
      `"draid", "spare" or "log"; zfs.pool_name gives it another`,
  );
}

/** @throws {LidoError} bad_request. */
export function checkDatasetName(name: string): void {
  const [pool, ...rest] = name.split("/");
  checkPoolName(pool!);
  if (rest.every((part) => /^[\w.:-]+$/.test(part) && part !== "." && part !== "..")) return;
  throw new LidoError("bad_request", `Invalid ZFS dataset name "${name}": letters, digits and . _ : - are allowed`);
}
