import { randomUUID } from "node:crypto";
import { LidoError } from "../../../api/errors.ts";
import type { Leftover, Volume } from "../driver.ts";
import { names } from "./layout.ts";
import type { Dataset } from "./output.ts";
import type { ZfsTool } from "./tool.ts";

/** ZFS cannot destroy what others were cloned from. So a volume with clones is not destroyed but moved to `deleted/`, a snapshot with clones is
 * renamed, and both are destroyed with the last of their clones. */
export class RetainedDatasets {
  readonly #tool: ZfsTool;
  /** Top dataset of the storage pool. */
  readonly #top: string;
  /** Snapshots that a running copy has made and not cloned from yet: they must not be reaped. */
  readonly #busy = new Set<string>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(tool: ZfsTool, top: string) {
    this.#tool = tool;
    this.#top = top;
  }

  /** Deletes a volume with its snapshots, and what was kept only for it. Two processes, however many snapshots it has. */
  deleteVolume(volume: Volume): Promise<void> {
    return this.#inTurn(() => this.#deleteVolume(volume));
  }

  /** Moves a volume to `deleted/`, where it stays until its last clone is deleted. */
  keep(volume: Volume): Promise<void> {
    return this.#inTurn(() => this.#keep(volume));
  }

  deleteSnapshot(snapshot: Volume): Promise<void> {
    return this.#inTurn(async () => {
      const name = names.snapshot(this.#top, snapshot);
      if (await this.#tool.destroy(name)) return;
      await this.#tool.rename(name, `${names.datasetOf(name)}@deleted-${randomUUID()}`);
    });
  }

  /** Serializes deletions: each checks for clones first, and a clone deleted meanwhile would leave what was kept for it behind for good. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #deleteVolume(volume: Volume): Promise<void> {
    const dataset = names.dataset(this.#top, volume);
    const found = await this.#tool.list(dataset);
    // Already destroyed: an earlier call may have been interrupted before it reaped.
    if (found.length === 0) {
      const all = await this.#tool.list(this.#top);
      if (all.length === 0) throw new LidoError("unavailable", `ZFS dataset "${this.#top}" does not exist`);
      return await this.reap(all);
    }
    if (found.some(({ clones }) => clones.length > 0) || !await this.#tool.destroy(dataset)) {
      return await this.#keep(volume);
    }
    await this.#reapOrigin(found.find(({ name }) => name === dataset)?.origin);
  }

  async #keep(volume: Volume): Promise<void> {
    await this.#tool.rename(names.dataset(this.#top, volume), names.kept(this.#top, volume, randomUUID()));
  }

  /** Runs `work` with a new snapshot of `dataset`, which is destroyed with its last clone, or at once when it has none. */
  async withCopySnapshot<T>(dataset: string, work: (snapshot: string) => Promise<T>): Promise<T> {
    const snapshot = `${dataset}@copy-${randomUUID()}`;
    this.#busy.add(snapshot);
    try {
      await this.#tool.snapshot(snapshot);
      return await work(snapshot);
    } catch (error) {
      await this.#tool.destroy(snapshot).catch(() => {}); // the next `reap` finds it
      throw error;
    } finally {
      this.#busy.delete(snapshot);
    }
  }

  /** Destroys what is kept for clones and has none left, and what interrupted copies left. @param found All datasets and snapshots of the pool. */
  async reap(found: readonly Dataset[]): Promise<void> {
    for (const { name, clones } of found) {
      if (this.#isOurs(name) && clones.length === 0 && !this.#busy.has(name)) await this.#tool.destroy(name);
    }
    for (const { name, origin } of found.filter(({ name }) => names.isKept(this.#top, name))) {
      if (this.#hasClones(found, name) || !await this.#tool.destroy(name)) continue;
      await this.#reapOrigin(origin);
    }
  }

  /** Temporary datasets and snapshots, those of running operations included. */
  leftovers(found: readonly Dataset[]): Leftover[] {
    return found.filter(({ name, clones }) => {
      if (names.isTransferSnapshot(name) || names.isRestored(this.#top, name)) return true;
      if (names.isKept(this.#top, name)) return !this.#hasClones(found, name);
      return this.#isOurs(name) && clones.length === 0 && !this.#busy.has(name);
    }).map(({ name }) => ({
      place: name.slice(this.#top.length + 1),
      of: names.nameOf(this.#top, name),
      remove: async () => void await this.#tool.destroy(name),
    }));
  }

  #hasClones(found: readonly Dataset[], dataset: string): boolean {
    return found.some(({ name, clones }) => names.datasetOf(name) === dataset && clones.length > 0);
  }

  #isOurs(snapshot: string): boolean {
    return names.isCopySnapshot(snapshot) || names.isDeletedSnapshot(snapshot);
  }

  /** After the deletion of a clone: destroys its origin if that was kept only for it, and the dataset above that likewise. */
  async #reapOrigin(origin: string | undefined): Promise<void> {
    if (origin === undefined || this.#busy.has(origin)) return;
    const dataset = names.datasetOf(origin);
    if (!names.isKept(this.#top, dataset)) {
      // Fails harmlessly when other clones still need it.
      if (this.#isOurs(origin)) await this.#tool.destroy(origin);
      return;
    }
    const found = await this.#tool.list(dataset);
    if (found.some(({ clones }) => clones.length > 0) || !await this.#tool.destroy(dataset)) return;
    await this.#reapOrigin(found.find(({ name }) => name === dataset)?.origin);
  }
}
