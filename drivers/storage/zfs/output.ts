/** Parsers of the output of `zfs` and `zpool`, 2.1 to 2.3. With `-Hp` where the command has it: tabs, no header, exact numbers. */

/** One row of `zfs list -Hp -o name,origin,clones`. */
export interface Dataset {
  /** `pool/custom/default_v` or, for a snapshot, `pool/custom/default_v@snapshot-s0`. */
  readonly name: string;
  /** The snapshot it was cloned from. */
  readonly origin: string | undefined;
  /** For a snapshot: the datasets that were cloned from it. */
  readonly clones: readonly string[];
}

/** @param output Of a command with `-H`. @throws {Error} On a line with another number of columns. */
export function rows(output: string, columns: number): string[][] {
  return output.split("\n").filter(Boolean).map((line) => {
    const fields = line.split("\t");
    if (fields.length !== columns) {
      throw new Error(`Cannot read the output of zfs: ${JSON.stringify(line.slice(0, 200))}`);
    }
    return fields;
  });
}

/** Whether a property is not set, or does not exist for the dataset. */
const isNone = (value: string | undefined) => value === undefined || value === "-" || value === "" || value === "none";

/** @param output Of `zfs list -Hp -o name,origin,clones`. @throws {Error} On any other line. */
export function parseDatasets(output: string): Dataset[] {
  return rows(output, 3).map(([name, origin, clones]) => ({
    name: name!,
    origin: isNone(origin) ? undefined : origin,
    clones: isNone(clones) ? [] : clones!.split(","),
  }));
}

/** @returns Bytes; undefined for none. @throws {Error} When it is not a number. */
export function parseBytes(value: string): bigint | undefined {
  if (isNone(value)) return undefined;
  if (!/^\d+$/.test(value)) throw new Error(`Cannot read a size of zfs: ${JSON.stringify(value.slice(0, 200))}`);
  return BigInt(value);
}

/** @param output Of `zfs version`: the tools' line, then the module's ("zfs-kmod-2.3.2-1"). */
export function parseVersion(output: string): { tools: string; module: string } {
  const tools = /^zfs-(\d\S*)$/m.exec(output)?.[1], module = /^zfs-kmod-(\d\S*)$/m.exec(output)?.[1];
  if (!tools || !module) throw new Error(`Cannot read the version of zfs: ${JSON.stringify(output.slice(0, 200))}`);
  return { tools, module };
}

export interface PoolStatus {
  /** "ONLINE", "DEGRADED", "SUSPENDED", … */
  readonly state: string;
  /** "scrub repaired 0B in 00:00:01 with 0 errors on …"; undefined when there was none. */
  readonly scan: string | undefined;
  /** "No known data errors", or their number. */
  readonly errors: string;
}

/** @param output Of `zpool status POOL`. @throws {Error} When it shows no state. */
export function parseStatus(output: string): PoolStatus {
  const field = (name: string) => {
    // A value may continue, indented, on the next lines.
    const found = new RegExp(`^ *${name}: (.*(?:\\n\\t.*)*)`, "m").exec(output)?.[1];
    return found?.split("\n").map((line) => line.trim()).filter(Boolean).join(", ");
  };
  const state = field("state");
  if (!state) throw new Error(`Cannot read the status of a ZFS pool: ${JSON.stringify(output.slice(0, 200))}`);
  return { state, scan: field("scan"), errors: field("errors") ?? "" };
}

/** The reason in a tool's error output, without the usage and advice that follow it. */
export function reasonOf(stderr: string): string {
  return stderr.split(/^usage:$|^use '-|^For further help|^A resuming stream/m, 1)[0]!.trim();
}
