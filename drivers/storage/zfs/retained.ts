import { randomUUID } from "node:crypto";
import { LidoError } from "../../../api/errors.ts";
import type { Leftover, Volume } from "../driver.ts";
import { names } from "./layout.ts";
import type { Dataset } from "./output.ts";
import type { ZfsTool } from "./tool.ts";

/** ZFS keeps what others were cloned from. So a volume with clones is not destroyed but moved to `deleted/`, a snapshot with clones gets another
 * name; and both go with the last of their clones. */
export class RetainedDatasets {
  readonly #tool: ZfsTool;
  /** Top of what is ours. */
  readonly #top: string;
  /** Snapshots that a copy has made and not cloned from yet: nobody's, but not to be reaped. */
  readonly #busy = new Set<string>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(tool: ZfsTool, top: string) {
    this.#tool = tool;
    this.#top = top;
  }

  /** Takes a volume with its snapshots away, and what was only kept for it. Two processes, however many snapshots it has. */
  deleteVolume(volume: Volume): Promise<void> {
    return this.#inTurn(() => this.#deleteVolume(volume));
  }

  /** Moves a volume to where it waits for the end of its clones. */
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

  /** One after the other: whether there are clones is looked at first, and a clone that goes meanwhile would leave what was kept for it to nobody. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #deleteVolume(volume: Volume): Promise<void> {
    const dataset = names.dataset(this.#top, volume);
    const found = await this.#tool.list(dataset);
    // An earlier call may have been cut off after that.
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

  /** Runs `work` with a snapshot of `dataset` at this moment, which goes with its last clone, or at once when it has none. */
  async withCopySnapshot<T>(dataset: string, work: (snapshot: string) => Promise<T>): Promise<T> {
    const snapshot = `${dataset}@copy-${randomUUID()}`;
    this.#busy.add(snapshot);
    try {
      await this.#tool.snapshot(snapshot);
      return await work(snapshot);
    } catch (error) {
      await this.#tool.destroy(snapshot).catch(() => {}); // the next reaping finds it
      throw error;
    } finally {
      this.#busy.delete(snapshot);
    }
  }

  /** Destroys what is kept for clones and has none left, and what copies left that were cut off. @param found All there is. */
  async reap(found: readonly Dataset[]): Promise<void> {
    for (const { name, clones } of found) {
      if (this.#isOurs(name) && clones.length === 0 && !this.#busy.has(name)) await this.#tool.destroy(name);
    }
    for (const { name, origin } of found.filter(({ name }) => names.isKept(this.#top, name))) {
      if (this.#hasClones(found, name) || !await this.#tool.destroy(name)) continue;
      await this.#reapOrigin(origin);
    }
  }

  /** What operations have made for their own time, those at work included. */
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

  /** The last clone is gone: so goes the snapshot it came from, if that was only kept for it, and the dataset above it likewise. */
  async #reapOrigin(origin: string | undefined): Promise<void> {
    if (origin === undefined || this.#busy.has(origin)) return;
    const dataset = names.datasetOf(origin);
    if (!names.isKept(this.#top, dataset)) {
      // Other clones of it keep it: then this does nothing.
      if (this.#isOurs(origin)) await this.#tool.destroy(origin);
      return;
    }
    const found = await this.#tool.list(dataset);
    if (found.some(({ clones }) => clones.length > 0) || !await this.#tool.destroy(dataset)) return;
    await this.#reapOrigin(found.find(({ name }) => name === dataset)?.origin);
  }
}
