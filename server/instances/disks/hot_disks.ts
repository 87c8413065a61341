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
  /** What goes and what comes, parents first. */
  removed: Disk[];
  added: Disk[];
}

export interface HotChange {
  /** Devices that the instance is to have, expanded. */
  readonly devices: Devices;
  /** Whether what is in use may be detached, to go when it is let go. */
  readonly lazy: boolean;
  readonly progress: ShiftProgress;
  /** Writes the change down; in one transaction with the end of the intent. */
  readonly record: () => void;
}

/** Disks of running containers, which come and go at once: all of a change or nothing of it. */
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
      // Within the daemon whoever changes them takes them back, and holds the volumes.
      if (cause === "failed") return await this.#takeBack(payload, cause);
      await adopted();
      await this.#disks.hold([...payload.removed, ...payload.added], () => this.#takeBack(payload, cause));
    }, { untilReboot: true }); // a container's mounts end with it
  }

  /** The devices that a running container has mounted. */
  mounted(name: string): Devices {
    return this.#records.mounted(name) ?? this.#records.expand(this.#records.get(name)).devices;
  }

  /** Brings a container's mounts to what is asked for. @throws {LidoError} `Failed to start device "x": …` and the like; nothing has changed then. */
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
      // Children first, so that nothing is mounted below what goes.
      for (const disk of removed.toReversed()) await this.#detach(name, disk, change.lazy);
      for (const disk of added) await this.#attach(name, disk, map, change.progress);
      intent.commit(record);
    });
    // A device that was only changed holds its volume by the same name.
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

  /** The end of a change that failed or was cut off: what came goes, what went comes back. */
  async #takeBack({ name, removed, added }: HotplugIntent, cause: Cause): Promise<void> {
    const record = this.#records.find(name);
    if (!record || !this.#services.runtime.get(name)) return;
    const { runtime, log } = this.#services;
    // One that was only to make way, and did not get to it, stays where it is.
    const isKept = (disk: Disk): boolean => removed.some((other) => JSON.stringify(other) === JSON.stringify(disk));
    for (const disk of added.toReversed()) {
      if (isKept(disk)) continue;
      await using use = await this.#disks.use(disk).catch((error) => {
        // What a killed daemon may have attached waits for its pool. Of a change that failed it did not get there without.
        if (cause === "crashed" || !isUnavailable(error)) throw error;
        return null;
      });
      try {
        if (!use || !await runtime.isAttached(name, this.#disks.place(disk))) continue;
        await runtime.detach(name, this.#disks.place(disk), { lazy: true });
      } catch (error) {
        // Where it would be, nothing answers: so it did not get there.
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
        // It must not keep the others away.
        log.warn({ instance: name, device: disk.device, reason: messageOf(error) }, "could not attach a disk again");
      }
    }
  }
}

const isUnavailable = (error: unknown): boolean => error instanceof LidoError && error.code === "unavailable";

/** What has to go and to come, parents first. A disk that stays, below one that does not, goes with it and comes again. */
export function difference(from: Devices, to: Devices): { removed: Disk[]; added: Disk[] } {
  const differs = (disk: Disk): boolean => !sameDevice(from[disk.device], to[disk.device]);
  const changed = [...disksOf(from), ...disksOf(to)].filter(differs).map((disk) => disk.target);
  const isMoved = (disk: Disk): boolean =>
    differs(disk) || changed.some((target) => disk.target.startsWith(`${target}/`));
  return { removed: disksOf(from).filter(isMoved), added: disksOf(to).filter(isMoved) };
}
