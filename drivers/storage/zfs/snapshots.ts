import { LidoError } from "../../../api/errors.ts";
import type { Pool, Snapshots, Volume } from "../driver.ts";
import { isTrue } from "../keys.ts";
import type { RetainedDatasets } from "./retained.ts";
import { names } from "./layout.ts";
import type { Mountpoints } from "./mountpoints.ts";
import { setting } from "./properties.ts";
import type { Properties, ZfsTool } from "./tool.ts";

interface Parts {
  readonly pool: Pool;
  readonly tool: ZfsTool;
  readonly mountpoints: Mountpoints;
  readonly kept: RetainedDatasets;
}

/** Snapshots and restores. `zfs rollback` goes back only to the latest snapshot, so
 *   - later ones that users know must be deleted first: a setting of the volume allows it, and their rows are deleted too;
 *   - later ones that only clones need stay, with their content: a clone of the wanted snapshot takes the volume's place, and the old volume stays
 *     under `deleted/` until its last clone is deleted. */
export class ZfsSnapshots implements Snapshots {
  readonly cost = "instant";
  readonly #parts: Parts;
  readonly #top: string;
  /** Datasets of volumes for which a restore has begun to put another dataset in their place. */
  readonly #cutOff = new Set<string>();

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#top = names.top(parts.pool);
  }

  /** Whether a restore of the volume has failed and could not be cleaned up. */
  isCutOff(volume: Volume): boolean {
    return this.#cutOff.has(names.dataset(this.#top, volume));
  }

  async create(snapshot: Volume): Promise<void> {
    await this.#parts.tool.snapshot(names.snapshot(this.#top, snapshot));
  }

  async createGroup(snapshots: readonly Volume[]): Promise<void> {
    await this.#parts.tool.snapshot(...snapshots.map((snapshot) => names.snapshot(this.#top, snapshot)));
  }

  async delete(snapshot: Volume): Promise<void> {
    await this.#parts.mountpoints.unmount(snapshot);
    await this.#parts.kept.deleteSnapshot(snapshot);
  }

  async rename(snapshot: Volume, name: string): Promise<void> {
    await this.#parts.mountpoints.unmount(snapshot);
    const from = names.snapshot(this.#top, snapshot);
    const to = names.snapshot(this.#top, { ...snapshot, snapshot: name });
    if (!await this.#parts.tool.rename(from, to)) throw new LidoError("not_found", `Snapshot "${from}" does not exist`);
  }

  async list(parent: Volume): Promise<string[]> {
    const found = await this.#parts.tool.names(names.dataset(this.#top, parent), 1);
    return found.flatMap((name) => names.volume(this.#top, name)?.snapshot ?? []);
  }

  async lostBy(snapshot: Volume): Promise<string[]> {
    const lost = (await this.#later(snapshot)).flatMap((name) => names.volume(this.#top, name)?.snapshot ?? []);
    if (lost.length > 0 && !isTrue(setting(this.#parts.pool, snapshot, "zfs.remove_snapshots"))) {
      throw new LidoError(
        "bad_request",
        `Snapshot "${snapshot.snapshot}" cannot be restored due to subsequent snapshot(s). Set zfs.remove_snapshots to override`,
      );
    }
    return lost;
  }

  async restore(snapshot: Volume, lost: readonly string[] = []): Promise<void> {
    const { tool, kept, mountpoints } = this.#parts;
    const name = names.snapshot(this.#top, snapshot), dataset = names.datasetOf(name);
    if (await tool.rollback(name)) return;
    await this.afterRestore(snapshot); // completes or rolls back an interrupted restore
    for (const snapshotName of lost) await mountpoints.unmount({ ...snapshot, snapshot: snapshotName });
    const going = lost.map((one) => names.snapshot(this.#top, { ...snapshot, snapshot: one }));
    // All at one moment; or one by one when clones keep some of them.
    if (!await tool.destroySnapshots(going)) {
      for (const one of lost) await kept.deleteSnapshot({ ...snapshot, snapshot: one });
    }
    if (await tool.rollback(name)) return;
    const known = (await this.#later(snapshot)).flatMap((one) => names.volume(this.#top, one)?.snapshot ?? []);
    if (known.length > 0) throw new LidoError("conflict", `Snapshots were made meanwhile: ${known.join(", ")}`);
    await mountpoints.unmount({ type: snapshot.type, name: snapshot.name });
    const restored = names.restored(this.#top, snapshot);
    this.#cutOff.add(dataset);
    if (!await tool.clone(name, restored, await this.#limits(dataset))) throw gone(name);
    await tool.promote(restored);
    await this.#putInPlace(snapshot);
  }

  /** Ends an interrupted restore: before the clone was promoted, it is destroyed; after that, it takes the volume's place. */
  async afterRestore(parent: Volume): Promise<void> {
    const { tool } = this.#parts;
    const restored = names.restored(this.#top, parent), dataset = names.dataset(this.#top, parent);
    if (await tool.exists(restored)) {
      const origin = (await tool.get(dataset, "origin"))?.[0];
      if (origin === undefined || origin.startsWith(`${restored}@`)) await this.#putInPlace(parent);
      else await tool.destroy(restored);
    }
    this.#cutOff.delete(dataset);
  }

  async #putInPlace({ type, name }: Volume): Promise<void> {
    await this.#parts.mountpoints.unmount({ type, name });
    await this.#parts.kept.keep({ type, name });
    await this.#parts.tool.rename(names.restored(this.#top, { type, name }), names.dataset(this.#top, { type, name }));
    this.#cutOff.delete(names.dataset(this.#top, { type, name }));
  }

  /** Names of all snapshots that were made after `snapshot`. @throws {LidoError} not_found. */
  async #later(snapshot: Volume): Promise<string[]> {
    const name = names.snapshot(this.#top, snapshot);
    const found = await this.#parts.tool.names(names.datasetOf(name), 1);
    const index = found.indexOf(name);
    if (index < 0) throw gone(name);
    return found.slice(index + 1).filter(names.isSnapshot);
  }

  /** Properties that a clone does not get from its origin. */
  async #limits(dataset: string): Promise<Properties> {
    const keys = ["recordsize", "quota", "refquota", "reservation", "refreservation"];
    const values = await this.#parts.tool.get(dataset, ...keys) ?? [];
    return Object.fromEntries(keys.map((key, index) => [key, values[index]!]).filter(([, value]) => value !== "0"));
  }
}

function gone(name: string): LidoError {
  return new LidoError("not_found", `Snapshot "${name}" does not exist`);
}
