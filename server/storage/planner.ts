import { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";
import type { Host } from "../../drivers/host/host.ts";
import {
  CannotShrink,
  type CopyOptions,
  type Driver,
  type Progress,
  type Volume,
} from "../../drivers/storage/driver.ts";
import type { MountedVolumes } from "./mounted.ts";

export interface Place {
  /** Name of the pool. */
  readonly pool: string;
  readonly driver: Driver;
  readonly volume: Volume;
}

export interface CopyPlan {
  /** How: "clone" (blocks are shared), "send" (the driver's stream), "files" (a walk of the tree, sharing blocks where that is possible). */
  readonly method: "clone" | "send" | "files";
  /** Why so; shown in the operation. */
  readonly reason: string;
}

/** The cheapest way from `source` to `target` that both drivers have. */
export function planCopy(source: Place, target: Place): CopyPlan {
  if (source.driver === target.driver) {
    const { clone } = source.driver.facets;
    if (clone) return { method: "clone", reason: `same pool, ${clone.cost}` };
    return { method: "files", reason: `same pool, but no clone: ${source.driver.absent.clone}` };
  }
  const sent = source.driver.facets.send, received = target.driver.facets.send;
  if (sent && received && sent.format === received.format && source.driver.facets.snapshot) {
    return { method: "send", reason: `both pools speak ${sent.format}` };
  }
  return { method: "files", reason: "the pools have no stream format in common" };
}

export interface CopyVolumeOptions extends CopyOptions {
  /** Names of the source's snapshots to take along, the oldest first. */
  readonly snapshots?: readonly string[];
}

/** Makes `target` a copy of `source`. On failure the caller deletes what there is of `target`.
 * @throws {LidoError} bad_request when snapshots are to come along and the target's driver has none. */
export async function copyVolume(
  { host, mounts }: { readonly host: Host; readonly mounts: MountedVolumes },
  source: Place,
  target: Place,
  plan: CopyPlan,
  options: CopyVolumeOptions = {},
): Promise<void> {
  const { snapshots = [], ...copy } = options;
  if (snapshots.length > 0 && !target.driver.facets.snapshot) {
    throw new LidoError("bad_request", `Cannot copy snapshots: ${target.driver.absent.snapshot}`);
  }
  if (plan.method === "files") return await copyFiles(host, mounts, source, target, snapshots, copy);
  const one = plan.method === "clone" ? cloneOne : sendOne;
  const { sizeBytes: _, ...unlimited } = copy;
  try {
    for (const snapshot of snapshots) {
      await one(at(source, snapshot), at(target, snapshot), unlimited);
    }
    await one(source, target, copy);
  } catch (error) {
    if (!(error instanceof CannotShrink)) throw error;
    await target.driver.delete(target.volume);
    await copyFiles(host, mounts, source, target, snapshots, copy);
  }
}

function at(place: Place, snapshot: string): Place {
  return { ...place, volume: { ...place.volume, snapshot } };
}

async function cloneOne(source: Place, target: Place, options: CopyOptions): Promise<void> {
  await source.driver.facets.clone!.clone(source.volume, target.volume, options);
}

/** The volume goes through the states that its snapshots hold, one after the other, and is snapshotted in each. */
async function copyFiles(
  host: Host,
  mounts: MountedVolumes,
  source: Place,
  target: Place,
  snapshots: readonly string[],
  options: CopyOptions,
): Promise<void> {
  await target.driver.create(target.volume, options);
  const states = [...snapshots.map((snapshot) => at(source, snapshot)), source];
  await using filled = await mounts.use(target.pool, target.volume);
  for (const [index, state] of states.entries()) {
    if (index > 0) await emptyTree(host, filled.path);
    {
      await using read = await mounts.use(state.pool, state.volume);
      await fillFrom(host, read.path, filled.path, options);
    }
    await target.driver.flush?.(target.volume);
    const snapshot = snapshots[index];
    if (snapshot !== undefined) await target.driver.facets.snapshot!.create(at(target, snapshot).volume);
  }
}

async function fillFrom(host: Host, source: string, target: string, options: CopyOptions): Promise<void> {
  const { signal, progress } = options;
  // `/.`: the content, with the owner and mode of the top itself.
  const argv = ["cp", "-a", "--reflink=auto", "--sparse=auto", "--", `${source}/.`, target];
  await host.run(argv, {
    ...(signal ? { signal } : {}),
    ...(progress ? { progress } : {}),
    timeoutMs: copyTimeoutMs,
  });
}

export async function emptyTree(host: Host, path: string): Promise<void> {
  await host.run(["find", path, "-mindepth", "1", "-delete"], { timeoutMs: copyTimeoutMs });
}

const copyTimeoutMs = 7 * 24 * 3_600_000;

/** A volume that is in use is sent from a snapshot that is only there for it. */
async function sendOne(source: Place, target: Place, options: CopyOptions): Promise<void> {
  const snapshots = source.driver.facets.snapshot!;
  const isSnapshot = source.volume.snapshot !== undefined;
  const moment = isSnapshot ? source.volume : { ...source.volume, snapshot: transferSnapshot };
  if (!isSnapshot) {
    await snapshots.delete(moment); // what a killed transfer left
    await snapshots.create(moment);
  }
  try {
    const { stream, done } = source.driver.facets.send!.send(moment, options.signal ? { signal: options.signal } : {});
    const counted = options.progress ? Readable.from(count(stream, options.progress)) : stream;
    await Promise.all([done, target.driver.facets.send!.receive(target.volume, counted, options)]);
  } finally {
    if (!isSnapshot) await snapshots.delete(moment);
  }
}

async function* count(stream: Readable, progress: Progress): AsyncGenerator<Uint8Array> {
  let bytes = 0n;
  for await (const chunk of stream) {
    progress(bytes += BigInt((chunk as Uint8Array).length));
    yield chunk as Uint8Array;
  }
}

/** A name that no user can give (it begins with a dot). */
export const transferSnapshot = ".lido-transfer";
