import { Readable } from "node:stream";
import { LidoError } from "../../../api/errors.ts";
import type { Clone, CopyOptions, Pool, Send, SendOptions, SentStream, Volume } from "../driver.ts";
import { setOwner } from "../directory_volumes.ts";
import { describe } from "../layout.ts";
import type { RetainedDatasets } from "./retained.ts";
import { names, transferSuffix } from "./layout.ts";
import { parseBytes } from "./output.ts";
import type { Mountpoints } from "./mountpoints.ts";
import { createProperties, explainLimit } from "./properties.ts";
import type { Properties, ZfsTool } from "./tool.ts";

interface Parts {
  readonly pool: Pool;
  readonly tool: ZfsTool;
  readonly mountpoints: Mountpoints;
  readonly kept: RetainedDatasets;
}

/** Copies within the pool, by `zfs.clone_copy`: "true" shares blocks with the source, which then exists as long as the copy; "rebase" shares
 * blocks with the image that both come from, and copies only the differences. */
export class ZfsClone implements Clone {
  readonly carriesSnapshots = false;
  readonly #parts: Parts;
  readonly #top: string;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#top = names.top(parts.pool);
  }

  get cost(): Clone["cost"] {
    return this.#isRebase ? "difference" : "instant";
  }

  get #isRebase(): boolean {
    return this.#parts.pool.config["zfs.clone_copy"] === "rebase";
  }

  async clone(source: Volume, target: Volume, options: CopyOptions = {}): Promise<void> {
    const { pool, mountpoints } = this.#parts;
    const dataset = names.dataset(this.#top, target);
    const properties = createProperties(pool, target, options.sizeBytes);
    try {
      if (source.type === "image") await this.#cloneImage(names.dataset(this.#top, source), dataset, properties);
      else if (this.#isRebase) await this.#rebase(source, dataset, properties, options);
      else await this.#cloneVolume(source, dataset, properties);
    } catch (error) {
      throw explainLimit(error);
    }
    if (options.mode !== undefined) await mountpoints.while(target, (path) => setOwner(path, target, options));
  }

  async #cloneVolume(source: Volume, dataset: string, properties: Properties): Promise<void> {
    await this.#atMoment(source, async (snapshot) => {
      if (!await this.#parts.tool.clone(snapshot, dataset, properties)) throw missing(snapshot);
    });
  }

  /** An image does not change: all clones share one snapshot, made with the first clone. */
  async #cloneImage(image: string, dataset: string, properties: Properties): Promise<void> {
    const { tool } = this.#parts;
    const snapshot = `${image}@readonly`;
    if (await tool.clone(snapshot, dataset, properties)) return;
    await tool.snapshot(snapshot).catch(async (error) => {
      if (!await tool.exists(snapshot)) throw error; // a concurrent clone made it
    });
    if (!await tool.clone(snapshot, dataset, properties)) throw missing(snapshot);
  }

  /** Clones the image and receives the differences from it. */
  async #rebase(source: Volume, dataset: string, properties: Properties, options: CopyOptions): Promise<void> {
    const { tool } = this.#parts;
    const { signal, progress } = options;
    const parent = await this.#imageOf(names.dataset(this.#top, source));
    await this.#atMoment(source, async (snapshot) => {
      const { stdout, done } = tool.send(snapshot, { parent, signal });
      const counted = progress ? Readable.from(count(stdout, progress)) : stdout;
      await Promise.all([done, tool.receive(dataset + transferSuffix, counted, { properties, signal }).done]);
    }, true);
    await tool.destroy(dataset + transferSuffix);
  }

  /** @returns The image's snapshot that a volume comes from, through any number of copies. */
  async #imageOf(dataset: string): Promise<string | undefined> {
    for (let at = dataset;;) {
      const origin = (await this.#parts.tool.get(at, "origin"))?.[0];
      if (origin === undefined || origin === "-" || origin === "") return undefined;
      if (/\/images\/[^/]+@readonly$/.test(origin)) return origin;
      at = names.datasetOf(origin);
    }
  }

  /** Runs `work` with a snapshot of the source. @param isPassing Whether the snapshot is not needed after `work`. */
  async #atMoment(source: Volume, work: (snapshot: string) => Promise<void>, isPassing = false): Promise<void> {
    if (source.snapshot !== undefined) return await work(names.snapshot(this.#top, source));
    await this.#parts.kept.withCopySnapshot(names.dataset(this.#top, source), async (snapshot) => {
      await work(snapshot);
      if (isPassing) await this.#parts.tool.destroy(snapshot);
    });
  }
}

/** Streams between pools. The snapshots of a volume are sent as differences, each from the one before it, and the volume from its latest; so a
 * receiver needs them in order. An interrupted receive keeps its data, and can be resumed. */
export class ZfsSend implements Send {
  readonly format = "zfs";
  readonly isChained = true;
  readonly resume: NonNullable<Send["resume"]>;
  readonly #parts: Parts;
  readonly #top: string;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#top = names.top(parts.pool);
    this.resume = {
      token: async (volume) => {
        const [token] = await parts.tool.get(names.dataset(this.#top, volume), "receive_resume_token") ?? [];
        return token === undefined || token === "-" || token === "" ? undefined : token;
      },
      send: (token, options = {}) => {
        const { stdout, done } = parts.tool.sendRest(token, options);
        return { stream: stdout, done };
      },
    };
  }

  async writtenBytes(volume: Volume): Promise<bigint> {
    const dataset = volume.snapshot === undefined
      ? names.dataset(this.#top, volume)
      : names.snapshot(this.#top, volume);
    const [written = "0"] = await this.#parts.tool.get(dataset, "written") ?? [];
    return parseBytes(written) ?? 0n;
  }

  send(volume: Volume, options: SendOptions & { parent?: Volume } = {}): SentStream {
    if (volume.snapshot === undefined) {
      throw new LidoError("bad_request", `Cannot send ${describe(volume)}: only a snapshot can be sent`);
    }
    const parent = options.parent && names.snapshot(this.#top, options.parent);
    const { stdout, done } = this.#parts.tool.send(names.snapshot(this.#top, volume), {
      parent,
      signal: options.signal,
    });
    return { stream: stdout, done };
  }

  async receive(volume: Volume, stream: Readable, options: CopyOptions & { parent?: Volume } = {}): Promise<void> {
    const { pool, tool } = this.#parts;
    const dataset = names.dataset(this.#top, volume);
    const target = volume.snapshot === undefined ? dataset + transferSuffix : names.snapshot(this.#top, volume);
    const properties = createProperties(pool, volume, options.sizeBytes);
    const { signal } = options;
    try {
      await tool.receive(target, stream, { properties, replaces: options.parent !== undefined, signal }).done;
    } catch (error) {
      if (signal?.aborted) await tool.abortReceive(dataset);
      throw explainLimit(error);
    }
    if (volume.snapshot === undefined) await tool.destroy(target);
  }
}

async function* count(stream: Readable, progress: NonNullable<CopyOptions["progress"]>): AsyncGenerator<Uint8Array> {
  let bytes = 0n;
  for await (const chunk of stream) {
    progress(bytes += BigInt((chunk as Uint8Array).length));
    yield chunk as Uint8Array;
  }
}

function missing(snapshot: string): LidoError {
  return new LidoError("not_found", `Snapshot "${snapshot}" does not exist`);
}
