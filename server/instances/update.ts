/** Changes of an instance's settings. On a running one, disks come and go at once; a change that the host refuses is not kept. */

import { LidoError, messageOf } from "../../api/errors.ts";
import { parseSizeBytes } from "../../api/size.ts";
import type { Config, Devices } from "../../api/types.ts";
import { architectureName } from "./architectures.ts";
import { checkInstanceConfig } from "./config_keys.ts";
import { checkDevices, checkExpandedDevices, type Disk, disksOf, rootDisk, sameDevice } from "./devices.ts";
import type { Disks } from "./disks.ts";
import { parseIdmap } from "./idmaps.ts";
import type { Maps } from "./maps.ts";
import type { InstanceServices } from "./ports.ts";
import { type Expanded, type InstanceRecord, type InstanceRecords, merge } from "./records.ts";
import { volumeOf } from "./rootfs.ts";
import { prefixed } from "./sharing.ts";

/** The settings a client may change. */
export interface Settings {
  readonly architecture: string;
  readonly description: string;
  readonly ephemeral: boolean;
  readonly config: Config;
  readonly devices: Devices;
  readonly profiles: readonly string[];
}

interface HotplugIntent {
  name: string;
  targets: string[];
}

const protectedKeys = [
  "volatile.idmap.base",
  "volatile.idmap.current",
  "volatile.idmap.next",
  "volatile.last_state.idmap",
];

export class Updates {
  readonly #services: InstanceServices;
  readonly #records: InstanceRecords;
  readonly #maps: Maps;
  readonly #disks: Disks;
  readonly #openHotplug: (payload: HotplugIntent) => ReturnType<ReturnType<InstanceServices["journal"]["kind"]>>;
  /** The devices that running containers have mounted. */
  readonly #mounted = new Map<string, Devices>();

  /** @param parts.adopted Resolves when the containers of an earlier daemon are known to the runtime. */
  constructor(parts: {
    services: InstanceServices;
    records: InstanceRecords;
    maps: Maps;
    disks: Disks;
    adopted: () => Promise<unknown>;
  }) {
    this.#services = parts.services;
    this.#records = parts.records;
    this.#maps = parts.maps;
    this.#disks = parts.disks;
    this.#openHotplug = parts.services.journal.kind<HotplugIntent>("instance.hotplug", async ({ name, targets }) => {
      await parts.adopted();
      await this.#mountAsRecorded(name, targets);
    });
  }

  /** Tells that a container was started, or found running, with the devices it has in the database. */
  started(name: string): void {
    this.#mounted.set(name, this.#records.expand(this.#records.get(name)).devices);
  }

  /** @throws {LidoError} bad_request with LXD's texts; nothing has changed then. */
  async apply(name: string, settings: Settings): Promise<void> {
    const before = this.#records.get(name);
    const ranges = await this.#maps.ranges();
    const after: InstanceRecord = {
      ...before,
      ...settings,
      architecture: settings.architecture === "" ? before.architecture : architectureName(settings.architecture),
      config: merge(settings.config, {}),
    };
    this.#check(before, after);
    const expanded = this.#records.expand(after);
    for (const disk of this.#added(this.#records.expand(before).devices, expanded.devices)) {
      await this.#disks.check(disk);
    }
    await this.#carryOut(before, expanded, () => {
      const volatile = this.#plan(name, this.#records.expand(after).config, ranges);
      this.#records.update(name, { ...after, config: { ...after.config, ...volatile } });
    });
    this.#services.events.lifecycle("instance-updated", `/1.0/instances/${name}`);
  }

  /** Makes an instance follow a profile that was changed. @throws {LidoError} When it cannot. */
  async follow(name: string): Promise<void> {
    const record = this.#records.find(name);
    if (!record) return;
    const ranges = await this.#maps.ranges();
    const expanded = this.#records.expand(record);
    checkExpandedDevices(expanded.devices);
    await this.#carryOut(record, expanded, () => {
      this.#records.setConfig(name, this.#plan(name, this.#records.expand(record).config, ranges));
    });
  }

  #plan(name: string, config: Config, ranges: Awaited<ReturnType<Maps["ranges"]>>): Config {
    try {
      return this.#maps.plan(name, config, ranges).volatile;
    } catch (error) {
      throw prefixed("Failed to get ID map: ", error);
    }
  }

  #check(before: InstanceRecord, after: InstanceRecord): void {
    try {
      checkInstanceConfig(after.config);
    } catch (error) {
      throw prefixed("Invalid config: ", error);
    }
    for (const key of protectedKeys) {
      if (before.config[key] === after.config[key]) continue;
      const verb = after.config[key] === undefined ? "deleted" : "changed";
      throw new LidoError("bad_request", `Volatile idmap keys can't be ${verb} by the user`);
    }
    checkDevices(after.devices);
    const { devices } = this.#records.expand(after);
    checkExpandedDevices(devices);
    let pool: string;
    try {
      pool = rootDisk(devices).device.pool!;
    } catch (error) {
      throw prefixed("Invalid expanded devices: Failed detecting root disk device: ", error);
    }
    if (pool !== rootDisk(this.#records.expand(before).devices).device.pool) {
      throw new LidoError("bad_request", `Cannot update root disk device pool name to "${pool}"`);
    }
  }

  /** Changes the host, then the database; if the host refuses, it is made as the database still has it. */
  async #carryOut(
    before: InstanceRecord,
    expanded: Expanded,
    record: () => void,
  ): Promise<void> {
    await this.#resize(before.name, expanded.devices);
    const running = this.#services.runtime.get(before.name);
    const mounted = this.#mounted.get(before.name) ?? this.#records.expand(before).devices;
    const removed = running ? this.#added(expanded.devices, mounted) : [];
    const added = running ? this.#added(mounted, expanded.devices) : [];
    if (removed.length === 0 && added.length === 0) {
      this.#services.database.transaction(record);
      return;
    }
    if (running!.status === "frozen") throw new LidoError("bad_request", "Instance is frozen");
    const targets = [...new Set([...removed, ...added].map((disk) => disk.target))];
    const map = parseIdmap(before.config["volatile.idmap.current"]);
    await this.#disks.hold([...removed, ...added], async () => {
      await using intent = this.#openHotplug({ name: before.name, targets });
      const undo = new AsyncDisposableStack();
      try {
        // Children first, so that nothing is mounted below what goes.
        for (const disk of removed.toReversed()) {
          await this.#detach(before.name, disk);
          undo.defer(() => this.#attach(before.name, disk, map));
        }
        for (const disk of added) {
          await this.#attach(before.name, disk, map);
          undo.defer(() => this.#services.runtime.detach(before.name, disk.target, { lazy: true }));
        }
        intent.commit(record);
      } catch (error) {
        await undo.disposeAsync();
        intent.commit(() => {});
        throw error;
      }
    });
    this.#mounted.set(before.name, expanded.devices);
    for (const disk of removed) await this.#disks.release(before.name, disk);
  }

  async #attach(name: string, disk: Disk, map: ReturnType<typeof parseIdmap>): Promise<void> {
    const mount = await this.#disks.prepare(name, disk, map);
    if (!mount) return;
    try {
      await this.#services.runtime.attach(name, mount);
    } catch (error) {
      await this.#disks.release(name, disk);
      throw prefixed(`Failed to start device "${disk.device}": `, error);
    }
  }

  async #detach(name: string, disk: Disk): Promise<void> {
    try {
      await this.#services.runtime.detach(name, disk.target);
    } catch (error) {
      throw prefixed(`Failed to stop device "${disk.device}": `, error);
    }
  }

  /** Brings single mounts of a running container to what the database says: the end of a change that failed or was cut off. */
  async #mountAsRecorded(name: string, targets: readonly string[]): Promise<void> {
    const record = this.#records.find(name);
    if (!record || !this.#services.runtime.get(name)) return;
    const { config, devices } = this.#records.expand(record);
    for (const target of targets.toReversed()) {
      await this.#services.runtime.detach(name, target, { lazy: true }).catch((error) =>
        this.#services.log.info({ instance: name, target, reason: messageOf(error) }, "nothing to detach")
      );
    }
    // Only what was mounted before.
    const before = this.#mounted.get(name) ?? devices;
    const kept = disksOf(devices).filter((disk) =>
      targets.includes(disk.target) && sameDevice(before[disk.device], devices[disk.device])
    );
    await this.#disks.hold(kept, async () => {
      for (const disk of kept) await this.#attach(name, disk, parseIdmap(config["volatile.idmap.current"]));
    });
  }

  /** Applies a changed size of the root disk, at once. */
  async #resize(name: string, devices: Devices): Promise<void> {
    const old = this.#mounted.get(name) ?? this.#records.expand(this.#records.get(name)).devices;
    const { device } = rootDisk(devices);
    const oldSize = Object.values(old).find((each) => each.type === "disk" && each.path === "/" && !each.source)?.size;
    if ((device.size ?? "") === (oldSize ?? "")) return;
    const driver = this.#services.pools.driver(device.pool!);
    const quota = driver.facets.quota;
    if (!quota) {
      if (!device.size) return;
      throw new LidoError(
        "bad_request",
        `Cannot limit the size of the root disk: ${driver.absent.quota ?? "the storage pool has no quotas"}`,
      );
    }
    const volume = volumeOf(name);
    await this.#services.mounts.alone(
      device.pool!,
      volume,
      () => quota.set(volume, device.size ? parseSizeBytes(device.size) : undefined),
    );
  }

  /** The disks of `to` that `from` has not, or has otherwise; parents first. */
  #added(from: Devices, to: Devices): Disk[] {
    return disksOf(to).filter((disk) => !sameDevice(from[disk.device], to[disk.device]));
  }
}
