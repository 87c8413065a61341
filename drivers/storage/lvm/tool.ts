import { CommandError, type Host, type RunResult } from "../../host/host.ts";
import { lockedBy } from "./lock.ts";

/** A logical volume as `lvs` reports it. */
export interface LogicalVolume {
  readonly name: string;
  readonly sizeBytes: bigint;
  /** The volume that a snapshot was taken of. */
  readonly origin: string | undefined;
  readonly isActive: boolean;
  /** Whether the device is open, for instance by a mount. */
  readonly isOpen: boolean;
  readonly isThinPool: boolean;
  /** Name of its thin pool. */
  readonly thinPool: string | undefined;
  /** Whether a classic snapshot is being merged back into it. */
  readonly isMerging: boolean;
  readonly tags: readonly string[];
}

export interface VolumeGroup {
  readonly name: string;
  readonly sizeBytes: bigint;
  readonly freeBytes: bigint;
  readonly extentBytes: bigint;
  readonly tags: readonly string[];
  readonly devices: readonly string[];
}

const volumeColumns = "lv_name,lv_size,origin,lv_active,lv_device_open,lv_attr,pool_lv,lv_tags";
const groupColumns = "vg_name,vg_size,vg_free,vg_extent_size,vg_tags,pv_name";
/** Limit of one command, with its wait for a lock of another process. */
const timeoutMs = 300_000;

/** Every call of LVM's tools: each argv and each parser; nothing else starts them. Reports are JSON with sizes in bytes.
 * LVM itself waits for a lock that another process has; the time limit bounds that. @see lvm(8), lvmreport(7) */
export class LvmTool {
  readonly #host: Host;
  readonly #limitMs: number;

  /** @param options.limitMs Time limit of each command. */
  constructor(host: Host, { limitMs = timeoutMs }: { limitMs?: number } = {}) {
    this.#host = host;
    this.#limitMs = limitMs;
  }

  /** @returns e.g. "2.03.16(2) (2022-05-18) / 1.02.185 (2022-05-18) / 4.47.0": tool, library, driver, as LXD shows it.
   * @throws {Error} When the kernel has no device-mapper. */
  async version(): Promise<string> {
    return parseVersion((await this.#run(["lvm", "version"])).stdout);
  }

  /** @returns undefined when there is no such group. */
  async group(name: string): Promise<VolumeGroup | undefined> {
    const output = await this.#report(["vgs", "-o", groupColumns, name], name);
    return output === undefined ? undefined : parseGroups(output)[0];
  }

  /** @returns undefined when there is no such group. */
  async volumes(group: string): Promise<LogicalVolume[] | undefined> {
    const output = await this.#report(["lvs", "-o", volumeColumns, group], group);
    return output === undefined ? undefined : parseVolumes(output);
  }

  /** Makes the physical volume too, which saves a process. */
  async createGroup(name: string, device: string, tag: string): Promise<void> {
    await this.#run(["vgcreate", "--yes", "--addtag", tag, name, device], name);
  }

  async tagGroup(group: string, tag: string): Promise<void> {
    await this.#run(["vgchange", "--yes", "--addtag", tag, group], group);
  }

  async untagGroup(group: string, tag: string): Promise<void> {
    await this.#tolerate(["vgchange", "--yes", "--deltag", tag, group], group);
  }

  /** Removes the group with all volumes; nothing there is no error. */
  async removeGroup(name: string): Promise<void> {
    await this.#tolerate(["vgremove", "--yes", "--force", name], name);
  }

  async deactivateGroup(name: string): Promise<void> {
    await this.#tolerate(["vgchange", "--yes", "-an", name], name);
  }

  /** Erases the labels of devices that no group uses; no label or no device is no error. */
  async removePhysical(devices: readonly string[]): Promise<void> {
    if (devices.length > 0) await this.#tolerate(["pvremove", "--yes", ...devices]);
  }

  async resizePhysical(device: string): Promise<void> {
    await this.#run(["pvresize", "--yes", device]);
  }

  /** Makes a thin pool of all free space of the group. */
  async createThinPool(
    group: string,
    name: string,
    options: { metadataBytes?: bigint; stripes?: string; stripeBytes?: bigint; tag: string },
  ): Promise<void> {
    await this.#run([
      ...["lvcreate", "--yes", "--type", "thin-pool", "--extents", "100%FREE"],
      ...(options.metadataBytes ? ["--poolmetadatasize", `${options.metadataBytes}b`] : []),
      ...striped(options),
      ...["--addtag", options.tag, "--name", name, group],
    ], group);
  }

  /** Makes writes to a full thin pool fail at once; by default they wait a minute for it to grow. */
  async failWhenFull(group: string, thinPool: string): Promise<void> {
    await this.#run(["lvchange", "--yes", "--errorwhenfull", "y", `${group}/${thinPool}`], group);
  }

  /** Extends a volume by all free space of the group; no free space is no error. */
  async extendAll(group: string, name: string): Promise<void> {
    await this.#tolerate(
      ["lvextend", "--yes", "--extents", "+100%FREE", `${group}/${name}`],
      group,
      /matches existing size|No size change|Insufficient free space|no free space/i,
    );
  }

  /** Makes an active volume that later is activated only with `-K`. @param options.thinPool Absent for a classic volume. */
  async create(
    group: string,
    name: string,
    options: { sizeBytes: bigint; thinPool?: string; stripes?: string; stripeBytes?: bigint },
  ): Promise<void> {
    const { sizeBytes, thinPool } = options;
    await this.#run([
      ...["lvcreate", "--yes", "--setactivationskip", "y", "--ignoreactivationskip", "--name", name],
      // Unwritten blocks of a thin volume read as zeros: no signature can be there.
      ...(thinPool
        ? ["--wipesignatures", "n", "--thin", "--virtualsize", `${sizeBytes}b`, `${group}/${thinPool}`]
        : ["--wipesignatures", "y", "--size", `${sizeBytes}b`, ...striped(options), group]),
    ], group);
  }

  /** @param options.isThin A classic snapshot gets room for every block of its origin and is active with it. @param options.isActive Thin only. */
  async snapshot(
    group: string,
    origin: string,
    name: string,
    options: { isThin: boolean; isReadonly: boolean; isActive: boolean },
  ): Promise<void> {
    await this.#run([
      ...["lvcreate", "--yes", "--setactivationskip", "y", "--permission", options.isReadonly ? "r" : "rw"],
      ...(options.isThin
        ? options.isActive ? ["--ignoreactivationskip"] : ["--activate", "n"]
        : ["--ignoreactivationskip", "--extents", "100%ORIGIN"]),
      ...["--snapshot", "--name", name, `${group}/${origin}`],
    ], group);
  }

  async setReadonly(group: string, name: string): Promise<void> {
    await this.#run(["lvchange", "--yes", "--permission", "r", `${group}/${name}`], group);
  }

  async tag(group: string, name: string, tag: string, isOn: boolean): Promise<void> {
    await this.#run(["lvchange", "--yes", isOn ? "--addtag" : "--deltag", tag, `${group}/${name}`], group);
  }

  async activate(group: string, ...names: string[]): Promise<void> {
    const paths = names.map((name) => `${group}/${name}`);
    await this.#run(["lvchange", "--yes", "-ay", "--ignoreactivationskip", ...paths], group);
  }

  /** A volume in use stays active. Nothing there is no error. @returns Whether all are inactive. */
  async deactivate(group: string, ...names: string[]): Promise<boolean> {
    if (names.length === 0) return true;
    try {
      await this.#tolerate(["lvchange", "--yes", "-an", ...names.map((name) => `${group}/${name}`)], group);
      return true;
    } catch (error) {
      if (error instanceof CommandError && inUse.test(error.stderr)) return false;
      throw error;
    }
  }

  /** Merges the classic snapshot into its origin, which removes the snapshot. Both must be unmounted and the origin active. */
  async merge(group: string, snapshot: string): Promise<void> {
    await this.#run(
      ["lvconvert", "--yes", "--interval", "1", "--merge", `${group}/${snapshot}`],
      group,
      mergeTimeoutMs,
    );
  }

  async rename(group: string, from: string, to: string): Promise<void> {
    await this.#run(["lvrename", "--yes", group, from, to], group);
  }

  async resize(group: string, name: string, sizeBytes: bigint): Promise<void> {
    const argv = ["lvresize", "--yes", "--force", "--size", `${sizeBytes}b`, `${group}/${name}`];
    await this.#tolerate(argv, group, /matches existing size|No size change/i);
  }

  /** Nothing there is no error. */
  async remove(group: string, ...names: string[]): Promise<void> {
    if (names.length === 0) return;
    await this.#tolerate(["lvremove", "--yes", "--force", ...names.map((name) => `${group}/${name}`)], group);
  }

  /** @returns undefined when LVM reports that the group does not exist. */
  async #report([tool, ...rest]: string[], group: string): Promise<string | undefined> {
    const argv = [tool!, "--reportformat", "json", "--units", "b", "--nosuffix", ...rest];
    try {
      return (await this.#run(argv, group)).stdout;
    } catch (error) {
      if (error instanceof CommandError && missing.test(error.stderr)) return undefined;
      throw error;
    }
  }

  async #tolerate(argv: string[], group?: string, harmless = missing): Promise<void> {
    try {
      await this.#run(argv, group);
    } catch (error) {
      // Of several names, one may be gone and another in use: "in use" counts.
      const isHarmless = error instanceof CommandError && !inUse.test(error.stderr) &&
        (harmless.test(error.stderr) || missing.test(error.stderr));
      if (!isHarmless) throw error;
    }
  }

  /** @param group The group whose lock the command may wait for. */
  async #run(argv: string[], group?: string, limitMs = this.#limitMs): Promise<RunResult> {
    try {
      return await this.#host.run(argv, { timeoutMs: limitMs });
    } catch (error) {
      if (group !== undefined && error instanceof CommandError && error.code === undefined) {
        const holder = await lockedBy(group);
        if (holder) {
          throw new Error(`${error.message}: volume group "${group}" is locked by ${holder}`, { cause: error });
        }
      }
      throw error;
    }
  }
}

const mergeTimeoutMs = 24 * 3_600_000;
const missing =
  /Volume group "\S+" not found|Failed to find logical volume|No device found for|No PV found on device|No PV label|not find physical volume/i;
const inUse = /in use|is used by/i;

function striped({ stripes, stripeBytes }: { stripes?: string; stripeBytes?: bigint }): string[] {
  return [...(stripes ? ["--stripes", stripes] : []), ...(stripeBytes ? ["--stripesize", `${stripeBytes}b`] : [])];
}

type Row = Readonly<Record<string, string>>;

/** @param output Of `vgs`: a row for each device of each group. @throws {Error} On other output. */
export function parseGroups(output: string): VolumeGroup[] {
  const groups = new Map<string, VolumeGroup & { devices: string[] }>();
  for (const row of parseReport(output, "vg")) {
    const name = field(row, "vg_name");
    const known = groups.get(name);
    if (known) known.devices.push(field(row, "pv_name"));
    else {
      groups.set(name, {
        name,
        sizeBytes: bytes(row, "vg_size"),
        freeBytes: bytes(row, "vg_free"),
        extentBytes: bytes(row, "vg_extent_size"),
        tags: list(row, "vg_tags"),
        devices: [field(row, "pv_name")],
      });
    }
  }
  return [...groups.values()];
}

/** @param output Of `lvs`. @throws {Error} On other output. */
export function parseVolumes(output: string): LogicalVolume[] {
  return parseReport(output, "lv").map((row) => {
    const attributes = field(row, "lv_attr");
    return {
      name: field(row, "lv_name").replace(/^\[(.*)\]$/, "$1"),
      sizeBytes: bytes(row, "lv_size"),
      origin: field(row, "origin") || undefined,
      isActive: field(row, "lv_active") === "active",
      isOpen: field(row, "lv_device_open") === "open",
      isThinPool: attributes.startsWith("t"),
      thinPool: field(row, "pool_lv").replace(/^\[(.*)\]$/, "$1") || undefined,
      isMerging: /^[OS]/.test(attributes),
      tags: list(row, "lv_tags"),
    };
  });
}

/** @param output Of `vgs|lvs --reportformat json`. @throws {Error} On other output. */
export function parseReport(output: string, kind: "vg" | "lv"): Row[] {
  let parsed: { report?: { [kind: string]: Row[] }[] } | null;
  try {
    parsed = JSON.parse(output);
  } catch {
    throw new Error(`Cannot read the report of lvm: ${JSON.stringify(output.slice(0, 200))}`);
  }
  const found = parsed?.report?.[0]?.[kind];
  if (!Array.isArray(found)) throw new Error(`Cannot read the report of lvm: it has no "${kind}"`);
  return found;
}

/** @param output Of `lvm version`. @throws {Error} On other output, or when the kernel has no device-mapper driver. */
export function parseVersion(output: string): string {
  const of = (label: string) => new RegExp(`^\\s*${label}:\\s*(.+)$`, "m").exec(output)?.[1]?.trim();
  const parts = [of("LVM version"), of("Library version"), of("Driver version")];
  if (!parts[0]) throw new Error(`Cannot read the version of lvm: ${JSON.stringify(output.slice(0, 200))}`);
  if (!parts[2]) throw new Error("the kernel has no device-mapper (module dm_mod, of the kernel's own package)");
  return parts.filter(Boolean).join(" / ");
}

function field(row: Row, name: string): string {
  const value = row[name];
  if (typeof value !== "string") throw new Error(`Cannot read the report of lvm: "${name}" is missing`);
  return value;
}

function bytes(row: Row, name: string): bigint {
  const value = field(row, name);
  if (!/^\d+$/.test(value)) throw new Error(`Cannot read the report of lvm: "${name}" is ${JSON.stringify(value)}`);
  return BigInt(value);
}

function list(row: Row, name: string): string[] {
  return field(row, name).split(",").filter(Boolean);
}
