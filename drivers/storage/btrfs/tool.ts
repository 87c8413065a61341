import { lstat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { deleteNested } from "../../host/btrfs/nested.ts";
import { hasQuota, staleQuotaGroups, subvolumeId } from "../../host/btrfs/quota.ts";
import { CommandError, type Host, type PipedCommand } from "../../host/host.ts";
import { writing } from "../tree.ts";
import { DroppedGroups } from "./dropped_groups.ts";

/** Every call of btrfs-progs: each argv and each parser; nothing else starts them. @see btrfs(8) */
export class BtrfsTool {
  readonly #host: Host;
  readonly #dropped = new DroppedGroups();

  constructor(host: Host) {
    this.#host = host;
  }

  /** @returns e.g. "6.2". */
  async version(): Promise<string> {
    return parseVersion((await this.#host.run(["btrfs", "--version"])).stdout);
  }

  /** @param options.force Overwrites the device's content. */
  async format(device: string, label: string, options: { force: boolean; words: readonly string[] }): Promise<void> {
    await this.#host.confined({ devices: [device] }).run([
      "mkfs.btrfs",
      "--quiet",
      ...(options.force ? ["--force"] : []),
      "--label",
      label,
      ...options.words,
      device,
    ]);
  }

  async create(path: string): Promise<void> {
    await this.#host.run(["btrfs", "subvolume", "create", path]);
  }

  async snapshot(source: string, target: string, options: { readonly: boolean }): Promise<void> {
    await this.#host.run(["btrfs", "subvolume", "snapshot", ...(options.readonly ? ["-r"] : []), source, target]);
  }

  /** Deletes subvolumes, those nested in them and their quota groups, safe against a power cut. One process when none are nested. */
  async delete(...paths: string[]): Promise<void> {
    const [first] = paths;
    if (first === undefined) return;
    const parent = dirname(first);
    const groups = hasQuota(parent) ? paths.map(subvolumeId) : undefined;
    try {
      await this.#host.run(["btrfs", "subvolume", "delete", ...paths]);
    } catch (error) {
      if (!(error instanceof CommandError && /not empty/i.test(error.stderr))) throw error;
      const left: string[] = [];
      for (const path of paths) {
        if (!await isSubvolume(path)) continue;
        left.push(path);
        const ids = await deleteNested(path);
        groups?.push(...ids);
      }
      if (left.length > 0) await this.#host.run(["btrfs", "subvolume", "delete", ...left]);
    }
    // Not by --commit-after: two such processes may both wait until the kernel commits by itself, half a minute later. Nor by fsync: it commits,
    // but only this also wakes the kernel's cleaner, without which the space stays in use for as long.
    await this.#host.run(["btrfs", "filesystem", "sync", parent]);
    if (groups) this.#dropped.drop(parent, groups);
  }

  /** Destroys the quota groups of subvolumes that no longer exist. */
  dropStaleGroups(path: string): void {
    this.#dropped.drop(path, staleQuotaGroups(path));
  }

  /** Switches quotas on, and waits until existing data was counted. */
  async enableQuota(path: string): Promise<void> {
    await this.#host.run(["btrfs", "quota", "enable", path]);
    await this.rescan(path);
  }

  /** Recounts everything, and waits for the end. */
  async rescan(path: string): Promise<void> {
    await this.#host.run(["btrfs", "quota", "rescan", "-w", path], { timeoutMs: rescanTimeoutMs });
  }

  /** @param snapshot In the same directory as `options.parent`. */
  send(snapshot: string, options: { parent?: string; signal?: AbortSignal }): PipedCommand {
    const at = (path: string) => join("/snapshots", basename(path));
    const argv = ["btrfs", "send", "--quiet", ...(options.parent ? ["-p", at(options.parent)] : []), at(snapshot)];
    // Both must be on one mount; the tool reads in /proc which mount that is.
    const tools = this.#host.confined({
      reads: { "/snapshots": dirname(snapshot) },
      hasProc: true,
      capabilities: ["CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"],
    });
    return tools.pipe(argv, { signal: options.signal });
  }

  /** Makes a subvolume from a stream. @param directory The subvolume is made in `received` in it; mount points for the tool are made beside that.
   * @param options.base What the stream may be based on: its path, and its path in the subvolume that contains `directory`. */
  receive(
    directory: string,
    stdin: Readable,
    options: { base?: { path: string; place: string }; signal?: AbortSignal },
  ): PipedCommand {
    const { base, signal } = options;
    // The tool asks the kernel for the base's path and opens it there; so the base is the only part of the pool that it sees.
    const tools = this.#host.confined({
      reads: base ? { [join("/pool", base.place)]: base.path } : {},
      writes: { "/pool": directory },
      capabilities: writing,
    });
    const argv = ["btrfs", "receive", "--quiet", "-e", "-m", "/pool", "/pool/received"];
    return tools.pipe(argv, { stdin, ...(signal ? { signal } : {}) });
  }

  async growToDevice(path: string): Promise<void> {
    await this.#host.run(["btrfs", "filesystem", "resize", "max", path]);
  }

  /** @returns Device errors by kind, summed over the devices; empty when there are none. */
  async errors(path: string): Promise<Map<string, bigint>> {
    return parseErrors((await this.#host.run(["btrfs", "device", "stats", path])).stdout);
  }
}

const subvolumeInode = 256;
/** A rescan reads the metadata of the whole filesystem. */
const rescanTimeoutMs = 24 * 3_600_000;

/** The root directory of a subvolume always has inode 256. @see btrfs-subvolume(8) */
export async function isSubvolume(path: string): Promise<boolean> {
  return await lstat(path).then((info) => info.isDirectory() && info.ino === subvolumeInode, () => false);
}

/** @param output Of `btrfs --version`: "btrfs-progs v6.2", perhaps with more lines. */
export function parseVersion(output: string): string {
  const version = /^btrfs-progs v(\S+)/m.exec(output)?.[1];
  if (!version) throw new Error(`Cannot read the version of btrfs: ${JSON.stringify(output.slice(0, 200))}`);
  return version;
}

/** @param output Of `btrfs device stats`: "[/dev/loop0].write_io_errs    0". */
export function parseErrors(output: string): Map<string, bigint> {
  const errors = new Map<string, bigint>();
  for (const line of output.split("\n").filter(Boolean)) {
    const match = /^\[.+\]\.(\w+)\s+(\d+)$/.exec(line.trim());
    if (!match) throw new Error(`Cannot read the output of btrfs device stats: ${JSON.stringify(line.slice(0, 200))}`);
    if (match[2] !== "0") errors.set(match[1]!, (errors.get(match[1]!) ?? 0n) + BigInt(match[2]!));
  }
  return errors;
}
