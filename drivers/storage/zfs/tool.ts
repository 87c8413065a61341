import type { Readable } from "node:stream";
import { CommandError, type Host, type PipedCommand } from "../../host/host.ts";

/** One row of `zfs list -Hp`. */
export interface Dataset {
  /** `pool/custom/default_v` or, for a snapshot, `pool/custom/default_v@snapshot-s0`. */
  readonly name: string;
  /** The snapshot it was cloned from. */
  readonly origin: string | undefined;
  /** For a snapshot: the datasets that were cloned from it. */
  readonly clones: readonly string[];
}

/** Everything lido asks of `zfs` and `zpool`: each argv and each parser, and nobody else starts them. Output is always `-Hp`: tabs, no
 * header, exact numbers. @see zfs(8), zpool(8) */
export class ZfsTool {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  /** @returns The version of the loaded module, e.g. "2.3.2-1~bpo12+1". @throws {CommandError} If the module is not loaded. */
  async version(): Promise<string> {
    const { stdout } = await this.#host.run(["zfs", "version"]);
    return parseVersion(stdout);
  }

  async createPool(name: string, vdevs: readonly string[], options: readonly string[]): Promise<void> {
    await this.#host.run([
      ...["zpool", "create", "-f", "-m", "none"],
      ...properties("-O", { compression: "on", ...datasetDefaults }),
      ...options,
      name,
      ...vdevs,
    ]);
  }

  /** @param searched Directory of the backing file; absent to search the devices. */
  async importPool(name: string, searched?: string): Promise<void> {
    await this.#host.run(["zpool", "import", "-f", ...(searched ? ["-d", searched] : []), name]);
  }

  async exportPool(name: string): Promise<void> {
    await this.#host.run(["zpool", "export", name]);
  }

  /** Nothing there is no error. */
  async destroyPool(name: string): Promise<void> {
    await this.#tolerate(["zpool", "destroy", "-f", name], /no such pool/);
  }

  /** @returns Pool name → health as `zpool list` says it ("ONLINE", "DEGRADED", "FAULTED", "SUSPENDED", …). */
  async pools(): Promise<Map<string, string>> {
    const { stdout } = await this.#host.run(["zpool", "list", "-Hp", "-o", "name,health"]);
    return new Map(rows(stdout, 2).map(([name, health]) => [name!, health!]));
  }

  async status(name: string): Promise<string> {
    return (await this.#host.run(["zpool", "status", name])).stdout;
  }

  /** Lets the pool take up the new size of `device`. */
  async expand(name: string, device: string): Promise<void> {
    await this.#host.run(["zpool", "online", "-e", name, device]);
  }

  async create(dataset: string, values: Record<string, string> = {}): Promise<void> {
    await this.#host.run(["zfs", "create", "-p", ...properties("-o", values), dataset]);
  }

  async set(dataset: string, values: Record<string, string>): Promise<void> {
    await this.#host.run(["zfs", "set", ...Object.entries(values).map(([key, value]) => `${key}=${value}`), dataset]);
  }

  /** @returns The values in the order of `names`. */
  async get(dataset: string, ...names: string[]): Promise<string[]> {
    const { stdout } = await this.#host.run(["zfs", "get", "-Hp", "-o", "value", names.join(","), dataset]);
    return rows(stdout, 1).map(([value]) => value!);
  }

  /** Datasets and snapshots at and below `dataset`; empty when there is none. */
  async list(dataset: string): Promise<Dataset[]> {
    const argv = ["zfs", "list", "-Hp", "-r", "-t", "filesystem,volume,snapshot", "-o", "name,origin,clones", dataset];
    const { code, stdout, stderr } = await this.#host.run(argv, { okCodes: [0, 1] });
    if (code === 0) return parseDatasets(stdout);
    if (/does not exist/.test(stderr)) return [];
    throw new CommandError(argv, code, stderr);
  }

  async snapshot(name: string): Promise<void> {
    await this.#host.run(["zfs", "snapshot", name]);
  }

  async rollback(snapshot: string): Promise<void> {
    await this.#host.run(["zfs", "rollback", snapshot]);
  }

  async clone(snapshot: string, dataset: string, values: Record<string, string> = {}): Promise<void> {
    await this.#host.run(["zfs", "clone", ...properties("-o", values), snapshot, dataset]);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#host.run(["zfs", "rename", ...(from.includes("@") ? [] : ["-p"]), from, to]);
  }

  /** With all snapshots; nothing there is no error. */
  async destroy(name: string): Promise<void> {
    await this.#tolerate(["zfs", "destroy", "-r", name], /does not exist|could not find any snapshots/);
  }

  send(snapshot: string, options: { parent?: string; signal?: AbortSignal }): PipedCommand {
    return this.#host.pipe(["zfs", "send", ...(options.parent ? ["-i", options.parent] : []), snapshot], options);
  }

  receive(dataset: string, stdin: Readable, signal?: AbortSignal): PipedCommand {
    return this.#host.pipe(["zfs", "receive", "-u", "-F", "-x", "mountpoint", dataset], { stdin, signal });
  }

  async #tolerate(argv: string[], harmless: RegExp): Promise<void> {
    try {
      await this.#host.run(argv);
    } catch (error) {
      if (!(error instanceof CommandError && harmless.test(error.stderr))) throw error;
    }
  }
}

/** What containers need of a filesystem, set once at the pool's top and inherited. */
export const datasetDefaults = {
  mountpoint: "legacy",
  setuid: "on",
  exec: "on",
  devices: "on",
  acltype: "posixacl",
  xattr: "sa",
} as const;

function properties(flag: "-o" | "-O", values: Record<string, string>): string[] {
  return Object.entries(values).flatMap(([key, value]) => [flag, `${key}=${value}`]);
}

function rows(output: string, columns: number): string[][] {
  return output.split("\n").filter(Boolean).map((line) => {
    const fields = line.split("\t");
    if (fields.length !== columns) {
      throw new Error(`Cannot read the output of zfs: ${JSON.stringify(line.slice(0, 200))}`);
    }
    return fields;
  });
}

/** @param output Of `zfs list -Hp -o name,origin,clones`. @throws {Error} On a line that is none. */
export function parseDatasets(output: string): Dataset[] {
  return rows(output, 3).map(([name, origin, clones]) => ({
    name: name!,
    origin: origin === "-" || origin === "" ? undefined : origin,
    clones: clones === "-" || clones === "" ? [] : clones!.split(","),
  }));
}

/** @param output Of `zfs version`: the tool's line, then the module's ("zfs-kmod-2.3.2-1"). */
export function parseVersion(output: string): string {
  const version = /^zfs-kmod-(\S+)$/m.exec(output)?.[1];
  if (!version) throw new Error("the ZFS kernel module is not loaded");
  return version;
}
