import { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";
import type { Host } from "../../drivers/host/host.ts";
import { CannotShrink, type CopyOptions, type Driver, type Volume } from "../../drivers/storage/driver.ts";
import { copyTree, emptyTree, flush } from "../../drivers/storage/tree.ts";
import { partsOf } from "../operations/progress.ts";
import type { MountedVolumes } from "../pools/mounted.ts";

export interface Place {
  /** Name of the pool. */
  readonly pool: string;
  readonly driver: Driver;
  readonly volume: Volume;
}

export interface CopyPlan {
  /** "clone" (blocks are shared), "send" (the driver's stream), or "files" (a walk of the tree, sharing blocks where possible). */
  readonly method: "clone" | "send" | "files";
  /** Why this method; shown in the operation. */
  readonly reason: string;
}

/** The cheapest way from `source` to `target` that both drivers have. @param withSnapshots Whether snapshots are copied, too. */
export function planCopy(source: Place, target: Place, withSnapshots = false): CopyPlan {
  let why = "the pools have no stream format in common";
  if (source.driver === target.driver) {
    const { clone } = source.driver.facets;
    if (clone && (clone.carriesSnapshots || !withSnapshots)) {
      return { method: "clone", reason: `same pool, ${clone.cost}` };
    }
    why = clone ? "same pool, but clones have no snapshots" : `same pool, but no clone: ${source.driver.absent.clone}`;
  }
  const sent = source.driver.facets.send, received = target.driver.facets.send;
  if (sent && received && sent.format === received.format && source.driver.facets.snapshot) {
    return { method: "send", reason: source.driver === target.driver ? why : `both pools speak ${sent.format}` };
  }
  return { method: "files", reason: why };
}

export interface CopyVolumeOptions extends CopyOptions {
  /** Names of the source's snapshots to copy, the oldest first. */
  readonly snapshots?: readonly string[];
  /** Snapshots of another volume of the target's pool that the target gets instead, the oldest first. */
  readonly kept?: { readonly volume: Volume; readonly snapshots: readonly string[] };
}

/** Makes `target` a copy of `source`. On failure the caller deletes the incomplete `target`.
 * @throws {LidoError} bad_request when there are snapshots to copy and the target's driver has none. */
export async function copyVolume(
  { host, mounts }: { readonly host: Host; readonly mounts: MountedVolumes },
  source: Place,
  target: Place,
  plan: CopyPlan,
  options: CopyVolumeOptions = {},
): Promise<void> {
  const { snapshots = [], kept, ...copy } = options;
  if (kept) return await copyKeeping({ host, mounts }, source, target, plan, kept, copy);
  if (snapshots.length > 0 && !target.driver.facets.snapshot) {
    throw new LidoError("bad_request", `Cannot copy snapshots: ${target.driver.absent.snapshot}`);
  }
  const states = [...snapshots.map((snapshot) => at(source, snapshot)), source];
  if (plan.method === "files") return await copyFiles(host, mounts, states, target, copy);
  const { sizeBytes: _, ...unlimited } = copy;
  const part = partsOf(copy.progress);
  if (plan.method === "send") return await sendAll(source, target, snapshots, copy, unlimited);
  try {
    for (const snapshot of snapshots) {
      await cloneOne(at(source, snapshot), at(target, snapshot), { ...unlimited, ...part() });
    }
    await cloneOne(source, target, { ...copy, ...part() });
  } catch (error) {
    if (!(error instanceof CannotShrink)) throw error;
    await target.driver.delete(target.volume);
    await copyFiles(host, mounts, states, target, copy);
  }
}

/** Makes `target` a copy of `source` that has the snapshots of another volume. Where clones carry snapshots, those share blocks with that volume's,
 * whatever the method for the content; else `target` is filled with the state of each snapshot in turn. */
async function copyKeeping(
  { host, mounts }: { readonly host: Host; readonly mounts: MountedVolumes },
  source: Place,
  target: Place,
  plan: CopyPlan,
  kept: NonNullable<CopyVolumeOptions["kept"]>,
  options: CopyOptions,
): Promise<void> {
  const places = kept.snapshots.map((snapshot) => at({ ...target, volume: kept.volume }, snapshot));
  const { clone } = target.driver.facets;
  if (!clone?.carriesSnapshots) return await copyFiles(host, mounts, [...places, source], target, options);
  for (const place of places) await cloneOne(place, at(target, place.volume.snapshot!), {});
  try {
    if (plan.method === "clone") return await cloneOne(source, target, options);
    if (plan.method === "send") return await sendAll(source, target, [], options, {});
    await copyFiles(host, mounts, [source], target, options);
  } catch (error) {
    if (!(error instanceof CannotShrink)) throw error;
    await target.driver.delete(target.volume);
    await copyFiles(host, mounts, [...places, source], target, options);
  }
}

function at(place: Place, snapshot: string): Place {
  return { ...place, volume: { ...place.volume, snapshot } };
}

async function cloneOne(source: Place, target: Place, options: CopyOptions): Promise<void> {
  await source.driver.facets.clone!.clone(source.volume, target.volume, options);
}

/** Fills `target` with each of the states in turn, and takes a snapshot after each but the last.
 * @param states Snapshots, the oldest first, and then the source of the volume's content. */
async function copyFiles(
  host: Host,
  mounts: MountedVolumes,
  states: readonly Place[],
  target: Place,
  options: CopyOptions,
): Promise<void> {
  await target.driver.create(target.volume, options);
  await using filled = await mounts.use(target.pool, target.volume);
  const part = partsOf(options.progress);
  for (const [index, state] of states.entries()) {
    if (index > 0) await emptyTree(host, filled.path);
    {
      await using read = await mounts.use(state.pool, state.volume);
      const { signal, progress } = { ...options, ...part() };
      await copyTree(host, read.path, filled.path, { reflink: "auto", signal, progress });
    }
    await target.driver.flush?.(target.volume);
    const { snapshot } = state.volume;
    // The last state may itself be a snapshot: it becomes the target's content, not a snapshot of it.
    if (index < states.length - 1) await target.driver.facets.snapshot!.create(at(target, snapshot!).volume);
  }
  await checkLimit(target, options.sizeBytes);
  await (target.driver.flush?.(target.volume) ?? flush(host, filled.path));
}

/** Called after this process has filled a volume. @throws {LidoError} bad_request when it is over its limit, which root may exceed on some
 * filesystems. */
export async function checkLimit(
  { driver, volume }: Omit<Place, "pool">,
  sizeBytes: bigint | undefined,
): Promise<void> {
  const { quota } = driver.facets;
  if (sizeBytes !== undefined && quota?.exemptsRoot) await quota.set(volume, sizeBytes);
}

/** Sends the snapshots, the oldest first, and then the volume; with a chained driver, each as the difference from the one before. */
async function sendAll(
  source: Place,
  target: Place,
  snapshots: readonly string[],
  options: CopyOptions,
  forSnapshots: CopyOptions,
): Promise<void> {
  const { isChained } = source.driver.facets.send!;
  if (source.volume.snapshot !== undefined) return await transfer(source, target, options, undefined);
  const part = partsOf(options.progress);
  let parent: string | undefined;
  for (const snapshot of snapshots) {
    await transfer(at(source, snapshot), at(target, snapshot), { ...forSnapshots, ...part() }, parent);
    if (isChained) parent = snapshot;
  }
  // The volume may be in use: it is sent from a temporary snapshot.
  const facet = source.driver.facets.snapshot!;
  const moment = at(source, transferSnapshot);
  await facet.delete(moment.volume); // left by a killed transfer
  try {
    await facet.create(moment.volume);
    await transfer(moment, target, { ...options, ...part() }, parent);
  } finally {
    await facet.delete(moment.volume);
  }
}

/** Sends one snapshot. An interrupted transfer is resumed if the receiver keeps the received part, as long as each try gets further.
 * @param parent Name of the snapshot that both sides have already. */
async function transfer(source: Place, target: Place, options: CopyOptions, parent: string | undefined): Promise<void> {
  const sender = source.driver.facets.send!, receiver = target.driver.facets.send!;
  const { signal, progress } = options;
  const known = (place: Place) => parent === undefined ? {} : { parent: at(place, parent).volume };
  const sending = signal ? { signal } : {};
  let bytes = 0n;
  const counted = progress && ((chunk: number) => progress(bytes += BigInt(chunk)));
  let sent = sender.send(source.volume, { ...known(source), ...sending });
  for (let token: string | undefined;;) {
    try {
      const stream = counted ? Readable.from(count(sent.stream, counted)) : sent.stream;
      return await all([sent.done, receiver.receive(target.volume, stream, { ...options, ...known(target) })]);
    } catch (error) {
      if (signal?.aborted) throw error;
      const next = await receiver.resume?.token(target.volume).catch(() => undefined);
      if (next === undefined || next === token || !sender.resume) throw error;
      token = next;
      sent = sender.resume.send(token, sending);
    }
  }
}

/** Waits until all have ended, so that none still runs during a retry. @throws The first failure: the others follow from it. */
async function all(work: readonly Promise<void>[]): Promise<void> {
  const failures: unknown[] = [];
  await Promise.all(work.map((one) => one.catch((error) => failures.push(error))));
  if (failures.length > 0) throw failures[0];
}

async function* count(stream: Readable, counted: (bytes: number) => void): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) {
    counted((chunk as Uint8Array).length);
    yield chunk as Uint8Array;
  }
}

/** A name that no user can give (it begins with a dot). */
export const transferSnapshot = ".lido-transfer";
