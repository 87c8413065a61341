import { LidoError, messageOf, wrongState } from "../../../api/errors.ts";
import type { Devices } from "../../../api/types.ts";
import type { IdMap } from "../../../drivers/host/id_map.ts";
import type { Cause, OpenIntent } from "../../journal/journal.ts";
import { type Disk, disksOf, sameDevice } from "../../config/devices.ts";
import type { Disks } from "./disks.ts";
import { parseIdmap } from "../../ids/idmaps.ts";
import type { InstanceServices } from "../services.ts";
import type { InstanceTable } from "../table.ts";
import type { ShiftProgress } from "./shift_progress.ts";
import { prefixed } from "./sharing.ts";

interface HotplugIntent {
  name: string;
  /** Disks to detach and to attach, parents first. */
  removed: Disk[];
  added: Disk[];
}

export interface HotChange {
  /** Expanded devices that the instance shall have. */
  readonly devices: Devices;
  /** Whether a disk in use may be detached lazily: it is unmounted when its last user closes it. */
  readonly lazy: boolean;
  readonly progress: ShiftProgress;
  /** Writes the change to the database, in the transaction that commits the intent. */
  readonly record: () => void;
}

/** Attaches and detaches disks of running containers: a change is made as a whole or not at all. */
export class HotDisks {
  readonly #services: InstanceServices;
  readonly #records: InstanceTable;
  readonly #disks: Disks;
  readonly #open: OpenIntent<HotplugIntent>;

  /** @param adopted Resolves when the containers of an earlier daemon are known to the runtime. */
  constructor(services: InstanceServices, records: InstanceTable, disks: Disks, adopted: () => Promise<unknown>) {
    this.#services = services;
    this.#records = records;
    this.#disks = disks;
    this.#open = services.journal.kind<HotplugIntent>("instance.hotplug", async (payload, cause) => {
      // After a failure, `change` still holds the volumes' locks.
      if (cause === "failed") return await this.#takeBack(payload, cause);
      await adopted();
      await this.#disks.hold([...payload.removed, ...payload.added], () => this.#takeBack(payload, cause));
    }, { untilReboot: true }); // a container's mounts end with it
  }

  /** The devices that a running container has mounted. */
  mounted(name: string): Devices {
    return this.#records.mounted(name) ?? this.#records.expand(this.#records.get(name)).devices;
  }

  /** Changes an instance's devices, and its mounts if it runs.
   * @throws {LidoError} `Failed to start device "x": …` and the like; nothing has changed then. */
  async change(name: string, change: HotChange): Promise<void> {
    const running = this.#services.runtime.get(name);
    if (!running) return this.#services.database.transaction(change.record);
    const { removed, added } = difference(this.mounted(name), change.devices);
    const record = () => {
      change.record();
      this.#records.setMounted(name, change.devices);
    };
    if (removed.length === 0 && added.length === 0) return this.#services.database.transaction(record);
    if (running.status === "frozen") throw wrongState("Instance is frozen", name);
    const map = parseIdmap(this.#records.get(name).config["volatile.idmap.current"]);
    await this.#disks.hold([...removed, ...added], async () => {
      await using intent = this.#open({ name, removed, added });
      // Children first, so that nothing is mounted below a disk that is detached.
      for (const disk of removed.toReversed()) await this.#detach(name, disk, change.lazy);
      for (const disk of added) await this.#attach(name, disk, map, change.progress);
      intent.commit(record);
    });
    // A changed device holds the same volume by the same holder's name, so it is not released.
    const isHeld = (disk: Disk): boolean =>
      added.some(({ device, volume }) =>
        device === disk.device && volume?.pool === disk.volume?.pool && volume?.name === disk.volume?.name
      );
    for (const disk of removed) if (!isHeld(disk)) await this.#disks.release(name, disk);
  }

  async #attach(name: string, disk: Disk, map: IdMap | undefined, progress?: ShiftProgress): Promise<void> {
    const mount = await this.#disks.prepare(name, disk, map, progress);
    if (!mount) return;
    try {
      await this.#services.runtime.attach(name, mount);
    } catch (error) {
      await this.#disks.release(name, disk);
      throw prefixed(`Failed to start device "${disk.device}": `, error);
    }
  }

  async #detach(name: string, disk: Disk, lazy: boolean): Promise<void> {
    try {
      await this.#services.runtime.detach(name, this.#disks.place(disk), { lazy });
    } catch (error) {
      throw prefixed(`Failed to stop device "${disk.device}": `, error);
    }
  }

  /** Rolls back a failed or interrupted change: detaches the added disks, attaches the removed ones again. */
  async #takeBack({ name, removed, added }: HotplugIntent, cause: Cause): Promise<void> {
    const record = this.#records.find(name);
    if (!record || !this.#services.runtime.get(name)) return;
    const { runtime, log } = this.#services;
    // A disk in both lists was only to be remounted below a changed one: if it is still attached, it stays.
    const isKept = (disk: Disk): boolean => removed.some((other) => JSON.stringify(other) === JSON.stringify(disk));
    for (const disk of added.toReversed()) {
      if (isKept(disk)) continue;
      await using use = await this.#disks.use(disk).catch((error) => {
        // A killed daemon may have attached the disk: roll back when its pool is available. A failed change cannot have attached it without its pool.
        if (cause === "crashed" || !isUnavailable(error)) throw error;
        return null;
      });
      try {
        if (!use || !await runtime.isAttached(name, this.#disks.place(disk))) continue;
        await runtime.detach(name, this.#disks.place(disk), { lazy: true });
      } catch (error) {
        // Its mount point does not answer, so the disk was not attached.
        if (!isUnavailable(error)) throw error;
        log.warn({ instance: name, device: disk.device, reason: messageOf(error) }, "could not look for a disk");
      }
      await this.#disks.release(name, disk);
    }
    for (const disk of removed) {
      try {
        if (await runtime.isAttached(name, this.#disks.place(disk))) continue;
        await this.#attach(name, disk, parseIdmap(record.config["volatile.idmap.current"]));
      } catch (error) {
        // One disk's failure must not keep the others from being attached.
        log.warn({ instance: name, device: disk.device, reason: messageOf(error) }, "could not attach a disk again");
      }
    }
  }
}

const isUnavailable = (error: unknown): boolean => error instanceof LidoError && error.code === "unavailable";

/** Disks to detach and to attach, parents first. An unchanged disk below a changed one is in both lists. */
export function difference(from: Devices, to: Devices): { removed: Disk[]; added: Disk[] } {
  const differs = (disk: Disk): boolean => !sameDevice(from[disk.device], to[disk.device]);
  const changed = [...disksOf(from), ...disksOf(to)].filter(differs).map((disk) => disk.target);
  const isMoved = (disk: Disk): boolean =>
    differs(disk) || changed.some((target) => disk.target.startsWith(`${target}/`));
  return { removed: disksOf(from).filter(isMoved), added: disksOf(to).filter(isMoved) };
}
