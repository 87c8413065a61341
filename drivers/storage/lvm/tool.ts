import { CommandError, type Host } from "../../host/host.ts";

/** A logical volume as `lvs` reports it. Sizes in bytes. */
export interface LogicalVolume {
  readonly name: string;
  readonly sizeBytes: bigint;
  /** The volume a snapshot was taken of. */
  readonly origin: string | undefined;
  /** The thin pool it is in. */
  readonly pool: string | undefined;
  readonly active: boolean;
  /** Of a thin pool or thin volume, or a classic snapshot: percent of data in use. */
  readonly dataPercent: number | undefined;
  readonly metadataPercent: number | undefined;
  readonly attributes: string;
}

export interface VolumeGroup {
  readonly name: string;
  readonly sizeBytes: bigint;
  readonly freeBytes: bigint;
  readonly tags: readonly string[];
  readonly logicalVolumes: number;
}

/** Everything lido asks of LVM's tools. Reports are `--reportformat json --units b --nosuffix`. A lock held by another process is waited
 * for by LVM itself; `run`'s time limit bounds the wait. @see lvm(8), lvmreport(7) */
export class LvmTool {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  /** @returns e.g. "2.03.16(2) (2022-05-18) / 1.02.185 (2022-05-18) / 4.47.0": tool, library, driver, as LXD shows it. */
  async version(): Promise<string> {
    const { stdout } = await this.#host.run(["lvm", "version"]);
    return parseVersion(stdout);
  }

  /** @returns undefined when there is no such group. */
  async group(name: string): Promise<VolumeGroup | undefined> {
    const found = await this.#report("vg", ["vgs", "-o", "vg_name,vg_size,vg_free,vg_tags,lv_count", name]);
    const row = found?.[0];
    return row && {
      name: field(row, "vg_name"),
      sizeBytes: bytes(row, "vg_size"),
      freeBytes: bytes(row, "vg_free"),
      tags: field(row, "vg_tags").split(",").filter(Boolean),
      logicalVolumes: Number(field(row, "lv_count")),
    };
  }

  /** @param name `vg` for all of a group, or `vg/lv`. Empty when there is none. */
  async volumes(name: string): Promise<LogicalVolume[]> {
    const columns = "lv_name,lv_size,origin,pool_lv,lv_active,data_percent,metadata_percent,lv_attr";
    return (await this.#report("lv", ["lvs", "-o", columns, name]) ?? []).map((row) => ({
      name: field(row, "lv_name"),
      sizeBytes: bytes(row, "lv_size"),
      origin: field(row, "origin") || undefined,
      pool: field(row, "pool_lv") || undefined,
      active: field(row, "lv_active") !== "",
      dataPercent: percent(row, "data_percent"),
      metadataPercent: percent(row, "metadata_percent"),
      attributes: field(row, "lv_attr"),
    }));
  }

  async createGroup(name: string, device: string, tag: string): Promise<void> {
    // vgcreate makes the physical volume itself: one process less.
    await this.#host.run(["vgcreate", "--yes", "--addtag", tag, name, device]);
  }

  async addTag(group: string, tag: string): Promise<void> {
    await this.#host.run(["vgchange", "--yes", "--addtag", tag, group]);
  }

  async deleteTag(group: string, tag: string): Promise<void> {
    await this.#host.run(["vgchange", "--yes", "--deltag", tag, group]);
  }

  /** Nothing there is no error. */
  async removeGroup(name: string): Promise<void> {
    await this.#tolerate(["vgremove", "--yes", "--force", name]);
  }

  async removePhysical(device: string): Promise<void> {
    await this.#tolerate(["pvremove", "--yes", "--force", "--force", device]);
  }

  async resizePhysical(device: string): Promise<void> {
    await this.#host.run(["pvresize", "--yes", device]);
  }

  async activate(name: string): Promise<void> {
    // Thin snapshots carry the "skip activation" flag, which -K overrides.
    await this.#host.run(["lvchange", "--yes", "-ay", "-K", name]);
  }

  async deactivate(name: string): Promise<void> {
    await this.#tolerate(["lvchange", "--yes", "-an", name]);
  }

  async createThinPool(group: string, name: string, options: { metadataBytes?: bigint }): Promise<void> {
    await this.#host.run([
      ...["lvcreate", "--yes", "--wipesignatures", "y", "--type", "thin-pool", "-l", "100%FREE"],
      ...(options.metadataBytes ? ["--poolmetadatasize", `${options.metadataBytes}b`] : []),
      ...["--name", name, group],
    ]);
  }

  async extendAll(name: string): Promise<void> {
    await this.#host.run(["lvextend", "--yes", "-l", "+100%FREE", name]);
  }

  /** @param options.thinPool Absent for a classic volume. */
  async create(
    group: string,
    name: string,
    options: { sizeBytes: bigint; thinPool?: string; stripes?: string; stripeBytes?: bigint },
  ): Promise<void> {
    const { sizeBytes, thinPool, stripes, stripeBytes } = options;
    await this.#host.run([
      ...["lvcreate", "--yes", "--wipesignatures", "y", "--setactivationskip", "n", "--name", name],
      ...(thinPool
        ? ["--thin", "--virtualsize", `${sizeBytes}b`, `${group}/${thinPool}`]
        : ["--size", `${sizeBytes}b`]),
      ...(stripes ? ["--stripes", stripes] : []),
      ...(stripeBytes ? ["--stripesize", `${stripeBytes}b`] : []),
      ...(thinPool ? [] : [group]),
    ]);
  }

  /** @param options.sizeBytes For a classic snapshot: how much may change. Thin ones need none. */
  async snapshot(origin: string, name: string, options: { sizeBytes?: bigint; readonly: boolean }): Promise<void> {
    await this.#host.run([
      ...["lvcreate", "--yes", "--setactivationskip", "n", "--activate", options.readonly ? "n" : "y"],
      ...["--permission", options.readonly ? "r" : "rw", "--snapshot", "--name", name],
      ...(options.sizeBytes ? ["--size", `${options.sizeBytes}b`] : []),
      origin,
    ].filter((word, index, all) => options.sizeBytes === undefined || !isActivateNo(word, index, all)));
  }

  async rename(group: string, from: string, to: string): Promise<void> {
    await this.#host.run(["lvrename", "--yes", group, from, to]);
  }

  async resize(name: string, sizeBytes: bigint): Promise<void> {
    await this.#host.run(["lvresize", "--yes", "--force", "--size", `${sizeBytes}b`, name]);
  }

  /** Nothing there is no error. */
  async remove(...names: string[]): Promise<void> {
    if (names.length > 0) await this.#tolerate(["lvremove", "--yes", "--force", ...names]);
  }

  /** @returns undefined when LVM says that there is no such thing. */
  async #report(kind: "vg" | "lv", argv: string[]): Promise<Row[] | undefined> {
    const [tool, ...rest] = argv;
    const full = [tool!, "--reportformat", "json", "--units", "b", "--nosuffix", ...rest];
    const { code, stdout, stderr } = await this.#host.run(full, { okCodes: [0, 5] });
    if (code === 0) return parseReport(stdout, kind);
    if (missing.test(stderr)) return undefined;
    throw new CommandError(full, code, stderr);
  }

  async #tolerate(argv: string[]): Promise<void> {
    try {
      await this.#host.run(argv);
    } catch (error) {
      if (!(error instanceof CommandError && missing.test(error.stderr))) throw error;
    }
  }
}

const missing = /not found|Failed to find|No such device|No physical volume found/i;

/** A classic snapshot cannot be made inactive: it is active with its origin. */
function isActivateNo(word: string, index: number, all: readonly string[]): boolean {
  return (word === "--activate" && all[index + 1] === "n") || (word === "n" && all[index - 1] === "--activate");
}

type Row = Readonly<Record<string, string>>;

/** @param output Of `vgs|lvs --reportformat json`. @throws {Error} On anything else. */
export function parseReport(output: string, kind: "vg" | "lv"): Row[] {
  let parsed: { report?: { [kind: string]: Row[] }[] };
  try {
    parsed = JSON.parse(output);
  } catch {
    throw new Error(`Cannot read the report of lvm: ${JSON.stringify(output.slice(0, 200))}`);
  }
  const found = parsed.report?.[0]?.[kind];
  if (!Array.isArray(found)) throw new Error(`Cannot read the report of lvm: it has no "${kind}"`);
  return found;
}

/** @param output Of `lvm version`. */
export function parseVersion(output: string): string {
  const of = (label: string) => new RegExp(`^\\s*${label}:\\s*(.+)$`, "m").exec(output)?.[1]?.trim();
  const version = of("LVM version");
  if (!version) throw new Error("Cannot read the version of lvm");
  return [version, of("Library version"), of("Driver version")].filter(Boolean).join(" / ");
}

function field(row: Row, name: string): string {
  const value = row[name];
  if (value === undefined) throw new Error(`Cannot read the report of lvm: "${name}" is missing`);
  return value;
}

function bytes(row: Row, name: string): bigint {
  const value = field(row, name);
  if (!/^\d+$/.test(value)) throw new Error(`Cannot read the report of lvm: "${name}" is ${JSON.stringify(value)}`);
  return BigInt(value);
}

function percent(row: Row, name: string): number | undefined {
  const value = field(row, name);
  return value === "" ? undefined : Number(value);
}
