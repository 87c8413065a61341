import type { Readable } from "node:stream";
import { LidoError } from "../../../api/errors.ts";
import { AlreadyThere } from "../driver.ts";
import { CommandError, type Host, type PipedCommand, type RunOptions } from "../../host/host.ts";
import { names } from "./layout.ts";
import { type Dataset, parseDatasets, parseStatus, parseVersion, type PoolStatus, reasonOf, rows } from "./output.ts";
import { isSuspended, suspension } from "./state.ts";

/** Properties by name, as in `-o NAME=VALUE`. */
export type Properties = Readonly<Record<string, string>>;

const isMissing = /dataset does not exist|no such pool|could not find any snapshots|name is too long/;
const isThere = /dataset already exists|^cannot receive [^\n]*: destination '[^\n']*' exists/m;
const hasClones = /has dependent clones/;
/** Interval of checks whether the pool is suspended: a command at work on it then never ends. */
const watchEveryMs = 2_000;

/** Every call of `zfs` and `zpool`: each argv; nothing else starts them. @see zfs(8), zpool(8) */
export class ZfsTool {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  /** @throws {CommandError} If the module is not loaded. */
  async version(): Promise<{ tools: string; module: string }> {
    return parseVersion(await this.#run(["zfs", "version"]));
  }

  /** @param vdevs Arguments of zpool: `mirror /dev/a /dev/b`. @param force Whether the devices' content may be overwritten. */
  async createPool(
    name: string,
    vdevs: readonly string[],
    options: { properties: Properties; datasets: Properties; words: readonly string[]; force: boolean },
  ): Promise<void> {
    const { properties, datasets, words, force } = options;
    await this.#run([
      ...["zpool", "create", ...(force ? ["-f"] : []), "-m", "none"],
      ...pairs("-o", properties),
      ...pairs("-O", datasets),
      ...words,
      name,
      ...vdevs,
    ]);
  }

  /** @param directory Where its files are; absent to search the devices. @param force Imports it even if another host had it last.
   * @returns Whether there is such a pool. */
  async importPool(name: string, options: { directory?: string; force?: boolean } = {}): Promise<boolean> {
    const { directory, force } = options;
    const argv = ["zpool", "import", "-N", ...(force ? ["-f"] : []), ...(directory ? ["-d", directory] : []), name];
    return await this.#tolerate(argv, /no such pool available/);
  }

  async exportPool(name: string): Promise<void> {
    await this.#tolerate(["zpool", "export", name], isMissing);
  }

  async destroyPool(name: string): Promise<void> {
    await this.#tolerate(["zpool", "destroy", "-f", name], isMissing);
  }

  /** @returns Names of the imported pools. */
  async pools(): Promise<string[]> {
    return rows(await this.#run(["zpool", "list", "-H", "-o", "name"]), 1).map(([name]) => name!);
  }

  async status(name: string): Promise<PoolStatus> {
    return parseStatus(await this.#run(["zpool", "status", name]));
  }

  /** Makes the pool use the new size of `device`. */
  async expand(name: string, device: string): Promise<void> {
    await this.#run(["zpool", "online", "-e", name, device]);
  }

  async create(dataset: string, properties: Properties = {}): Promise<void> {
    await this.#run(["zfs", "create", ...pairs("-o", properties), dataset]);
  }

  async set(dataset: string, properties: Properties): Promise<void> {
    const words = Object.entries(properties).map(([name, value]) => `${name}=${value}`);
    if (words.length > 0) await this.#run(["zfs", "set", ...words, dataset]);
  }

  async inherit(dataset: string, property: string): Promise<void> {
    await this.#run(["zfs", "inherit", property, dataset]);
  }

  /** @returns The values in the order of `properties`; undefined when there is no such dataset. */
  async get(dataset: string, ...properties: string[]): Promise<string[] | undefined> {
    const found = await this.#ask(["zfs", "get", "-Hp", "-o", "value", properties.join(","), dataset]);
    return found === undefined ? undefined : rows(found, 1).map(([value]) => value!);
  }

  /** @returns A property and its source: "local", "inherited from x", "-"; undefined when there is no such dataset. */
  async sourced(dataset: string, property: string): Promise<{ value: string; source: string } | undefined> {
    const found = await this.#ask(["zfs", "get", "-Hp", "-o", "value,source", property, dataset]);
    const [row] = found === undefined ? [] : rows(found, 2);
    return row && { value: row[0]!, source: row[1]! };
  }

  /** @returns Datasets and snapshots at and below `dataset`, snapshots of one by age; empty when there is no such dataset. */
  async list(dataset: string): Promise<Dataset[]> {
    return parseDatasets(await this.#ask([...listing, "-r", "-o", "name,origin,clones", dataset]) ?? "");
  }

  /** As `list`, but only the names: it reads no properties and is fast for thousands. @param depth 1: the dataset's own snapshots and children. */
  async names(dataset: string, depth?: number): Promise<string[]> {
    const range = depth === undefined ? ["-r"] : ["-d", String(depth)];
    return rows(await this.#ask([...listing, ...range, "-o", "name", dataset]) ?? "", 1).map(([name]) => name!);
  }

  async exists(name: string): Promise<boolean> {
    return await this.#ask(["zfs", "list", "-H", "-o", "name", name]) !== undefined;
  }

  /** Takes all of them at one moment. */
  async snapshot(...snapshots: string[]): Promise<void> {
    await this.#run(["zfs", "snapshot", ...snapshots]);
  }

  /** @returns Whether it was rolled back; false when there are later snapshots, or no such snapshot. */
  async rollback(snapshot: string): Promise<boolean> {
    return await this.#tolerate(
      ["zfs", "rollback", snapshot],
      /more recent snapshots or bookmarks exist|does not exist/,
    );
  }

  /** @returns Whether the snapshot exists. */
  async clone(snapshot: string, dataset: string, properties: Properties = {}): Promise<boolean> {
    return await this.#tolerate(["zfs", "clone", ...pairs("-o", properties), snapshot, dataset], isMissing);
  }

  async promote(clone: string): Promise<void> {
    await this.#run(["zfs", "promote", clone]);
  }

  /** Renames a dataset with its snapshots, or one snapshot. @returns Whether it existed. */
  async rename(from: string, to: string): Promise<boolean> {
    return await this.#tolerate(["zfs", "rename", from, to], isMissing);
  }

  /** Destroys a dataset with all its snapshots, or one snapshot; nothing there is no error.
   * @returns Whether it is gone; false when it has clones: then nothing has changed. */
  async destroy(name: string): Promise<boolean> {
    const argv = ["zfs", "destroy", ...(name.includes("@") ? [] : ["-r"]), name];
    try {
      await this.#run(argv);
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      if (hasClones.test(error.stderr)) return false;
      if (!isMissing.test(error.stderr)) throw error;
    }
    return true;
  }

  /** Destroys snapshots of one dataset, all at one moment; missing ones are no error.
   * @returns Whether they are gone; false when one of them has clones: then nothing has changed. */
  async destroySnapshots(snapshots: readonly string[]): Promise<boolean> {
    const [first, ...rest] = snapshots;
    if (first === undefined) return true;
    return await this.destroy([first, ...rest.map((one) => one.slice(one.indexOf("@") + 1))].join(","));
  }

  /** Destroys a dataset and everything that was cloned from it. */
  async destroyWithClones(dataset: string): Promise<void> {
    await this.#tolerate(["zfs", "destroy", "-R", dataset], isMissing);
  }

  /** Sends blocks as they are on disk: compressed, and of any size. */
  send(snapshot: string, options: { parent?: string | undefined; signal?: AbortSignal | undefined }): PipedCommand {
    const from = options.parent ? ["-i", options.parent] : [];
    return this.#pipe(["zfs", "send", "-L", "-e", "-c", ...from, snapshot], options);
  }

  /** Sends the rest for an interrupted receive. */
  sendRest(token: string, options: { signal?: AbortSignal | undefined }): PipedCommand {
    return this.#pipe(["zfs", "send", "-t", token], options);
  }

  /** An interrupted receive keeps its data; `receive_resume_token` then tells where it can continue.
   * @param options.replaces Whether writes to the dataset since its latest snapshot are discarded. */
  receive(
    snapshot: string,
    stdin: Readable,
    options: { properties?: Properties; replaces?: boolean; signal?: AbortSignal | undefined },
  ): PipedCommand {
    const { properties = {}, replaces = false } = options;
    const flags = ["-s", "-u", ...(replaces ? ["-F"] : []), "-x", "mountpoint", ...pairs("-o", properties)];
    return this.#pipe(["zfs", "receive", ...flags, snapshot], { ...options, stdin });
  }

  /** Discards the data of an interrupted receive; nothing there is no error. */
  async abortReceive(dataset: string): Promise<void> {
    await this.#tolerate(["zfs", "receive", "-A", dataset], /does not have any resumable receive state|does not exist/);
  }

  /** @throws {LidoError} unavailable when the pool's devices do not answer: mount(2) would then never return. */
  refuseSuspended(dataset: string): void {
    const pool = names.zpool(dataset);
    if (isSuspended(pool)) throw suspended(pool);
  }

  /** @returns The output; undefined when there is no such dataset. */
  async #ask(argv: readonly string[]): Promise<string | undefined> {
    try {
      return await this.#run(argv);
    } catch (error) {
      if (error instanceof CommandError && isMissing.test(error.stderr)) return undefined;
      throw error;
    }
  }

  /** @returns Whether it succeeded; false when the error matches `harmless`. */
  async #tolerate(argv: readonly string[], harmless: RegExp): Promise<boolean> {
    try {
      await this.#run(argv);
      return true;
    } catch (error) {
      if (error instanceof CommandError && harmless.test(error.stderr)) return false;
      throw error;
    }
  }

  async #run(argv: readonly string[], options: RunOptions = {}): Promise<string> {
    try {
      return (await unlessSuspended(argv, this.#host.run(argv, options))).stdout;
    } catch (error) {
      throw explained(argv, error);
    }
  }

  #pipe(argv: readonly string[], options: { stdin?: Readable; signal?: AbortSignal | undefined }): PipedCommand {
    const { stdin, signal } = options;
    // No stall check: reads and writes of the kernel's own threads do not count for the tool. `unlessSuspended` notices a pool that does not answer.
    const { stdout, done } = this.#host.pipe(argv, {
      stallMs: 0,
      ...(stdin ? { stdin } : {}),
      ...(signal ? { signal } : {}),
    });
    const told = unlessSuspended(argv, done).catch((error) => Promise.reject(explained(argv, error)));
    told.catch(() => {});
    return { stdout, done: told };
  }
}

const listing = ["zfs", "list", "-Hp", "-t", "filesystem,volume,snapshot"];

function pairs(flag: "-o" | "-O", properties: Properties): string[] {
  return Object.entries(properties).flatMap(([name, value]) => [flag, `${name}=${value}`]);
}

/** Reduces an error to the tool's reason, without the usage after it; an existing target becomes `AlreadyThere`. */
function explained(argv: readonly string[], error: unknown): unknown {
  if (!(error instanceof CommandError) || error.stderr === "") return error;
  if (isThere.test(error.stderr)) return new AlreadyThere(`dataset "${argv.at(-1)}"`);
  if (/pool I\/O is currently suspended/.test(error.stderr)) {
    const pool = /cannot \w+ '([^'/@]+)/.exec(error.stderr)?.[1];
    if (pool) return suspended(pool);
  }
  return new CommandError(argv, error.code, reasonOf(error.stderr));
}

function suspended(pool: string): LidoError {
  return new LidoError("unavailable", suspension(pool));
}

/** Waits for a command, but gives up when the pool is suspended: nothing can end the command then, not even SIGKILL. */
async function unlessSuspended<T>(argv: readonly string[], work: Promise<T>): Promise<T> {
  // The last argument names the pool, except when a pool is created, which cannot be suspended yet.
  const pool = names.zpool(argv.at(-1)!);
  let timer: NodeJS.Timeout | undefined;
  const stuck = new Promise<never>((_, reject) => {
    timer = setInterval(() => isSuspended(pool) && reject(suspended(pool)), watchEveryMs);
  });
  try {
    return await Promise.race([work, stuck]);
  } finally {
    clearInterval(timer);
    work.catch(() => {});
  }
}
