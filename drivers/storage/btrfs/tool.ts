import { lstat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { deleteNested } from "../../host/btrfs/nested.ts";
import { hasQuota, staleQuotaGroups, subvolumeId } from "../../host/btrfs/quota.ts";
import { CommandError, type Host, type PipedCommand } from "../../host/host.ts";
import { writing } from "../tree.ts";
import { DroppedGroups } from "./dropped_groups.ts";

/** Everything lido asks of btrfs-progs: each argv and each parser, and nobody else starts them. @see btrfs(8) */
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

  /** @param options.force Overwrites what is on the device. */
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

  /** Deletes subvolumes and those nested in them, with their quota groups, for good: after a power cut, too. One process when there are none nested. */
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
    // Not by --commit-after: two processes that do may both wait until the kernel commits of its own accord, half a minute later. Nor by fsync:
    // it commits, but only this wakes the kernel's cleaner too, without which the space stays taken for as long.
    await this.#host.run(["btrfs", "filesystem", "sync", parent]);
    if (groups) this.#dropped.drop(parent, groups);
  }

  /** Takes away what was left of subvolumes that are gone. */
  dropStaleGroups(path: string): void {
    this.#dropped.drop(path, staleQuotaGroups(path));
  }

  /** Switches quotas on, and waits until what is there was counted. */
  async enableQuota(path: string): Promise<void> {
    await this.#host.run(["btrfs", "quota", "enable", path]);
    await this.rescan(path);
  }

  /** Waits until everything was counted anew. */
  async rescan(path: string): Promise<void> {
    await this.#host.run(["btrfs", "quota", "rescan", "-w", path], { timeoutMs: rescanTimeoutMs });
  }

  /** @param snapshot Beside `options.parent`. */
  send(snapshot: string, options: { parent?: string; signal?: AbortSignal }): PipedCommand {
    const at = (path: string) => join("/snapshots", basename(path));
    const argv = ["btrfs", "send", "--quiet", ...(options.parent ? ["-p", at(options.parent)] : []), at(snapshot)];
    // Both must be on one mount; which that is, it reads in /proc.
    const tools = this.#host.confined({
      reads: { "/snapshots": dirname(snapshot) },
      hasProc: true,
      capabilities: ["CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"],
    });
    return tools.pipe(argv, { signal: options.signal });
  }

  /** Makes what a stream tells. @param directory For what is made, in its directory `received`; places for what it sees are made beside that.
   * @param options.base What the stream may be based on: its path, and where it is in the subvolume that `directory` is in. */
  receive(
    directory: string,
    stdin: Readable,
    options: { base?: { path: string; place: string }; signal?: AbortSignal },
  ): PipedCommand {
    const { base, signal } = options;
    // It asks the kernel where the base is, and looks there. So that is all that it sees of the pool.
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

  /** @returns Device errors by kind, summed over the devices; empty when all is well. */
  async errors(path: string): Promise<Map<string, bigint>> {
    return parseErrors((await this.#host.run(["btrfs", "device", "stats", path])).stdout);
  }
}

const subvolumeInode = 256;
/** A rescan reads the metadata of the whole filesystem. */
const rescanTimeoutMs = 24 * 3_600_000;

/** The root of a subvolume is always inode 256. @see btrfs-subvolume(8) */
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
