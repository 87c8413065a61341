/** Changes of an instance's settings. On a running instance, disks are attached and detached at once; a change that the host refuses is not kept. */

import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { LidoError, messageOf } from "../../api/errors.ts";
import { parseSizeBytes } from "../../api/size.ts";
import type { Config, Devices } from "../../api/types.ts";
import type { Quota } from "../../drivers/storage/driver.ts";
import { architectureName } from "../config/architectures.ts";
import { checkForHost, checkInstanceConfig } from "../config/instance.ts";
import { checkDevices, checkExpandedDevices, disksOf, isRoot, rootDisk, sameDevice } from "../config/devices.ts";
import type { Disks } from "./disks/disks.ts";
import type { HotDisks } from "./disks/hot_disks.ts";
import { keysThatWait, limitsOf, restartNote } from "./lifecycle/limits.ts";
import type { IdmapAllocator } from "./idmap_allocator.ts";
import type { InstanceServices } from "./services.ts";
import { type Expanded, type InstanceRecord, type InstanceTable, merge } from "./table.ts";
import { volumeOf } from "./disks/rootfs.ts";
import { type ShiftProgress, untold } from "./disks/shift_progress.ts";
import { prefixed } from "./disks/sharing.ts";
import type { OpenIntent } from "../journal/journal.ts";

/** The settings a client may change. */
export interface InstanceSettings {
  readonly architecture: string;
  readonly description: string;
  readonly ephemeral: boolean;
  readonly config: Config;
  readonly devices: Devices;
  readonly profiles: readonly string[];
}

export interface UpdateOptions {
  /** Whether a disk in use may be detached lazily: it is unmounted when its last user closes it. */
  readonly lazy?: boolean;
  readonly progress?: ShiftProgress;
}

/** Result of applying a profile's change to its instances. */
export interface Followed {
  /** Notes for the client. */
  readonly notes: readonly string[];
  readonly failures: readonly { readonly instance: string; readonly reason: string }[];
}

interface ResizeIntent {
  name: string;
  pool: string;
  /** The size until then; empty for none. Absent in the intents of earlier versions. */
  from?: string;
}

const protectedKeys = [
  "volatile.idmap.base",
  "volatile.idmap.current",
  "volatile.idmap.next",
  "volatile.last_state.idmap",
];

export class Updates {
  readonly #services: InstanceServices;
  readonly #records: InstanceTable;
  readonly #maps: IdmapAllocator;
  readonly #disks: Disks;
  readonly #hot: HotDisks;
  readonly #openResize: OpenIntent<ResizeIntent>;

  constructor(parts: {
    services: InstanceServices;
    records: InstanceTable;
    maps: IdmapAllocator;
    disks: Disks;
    hot: HotDisks;
  }) {
    this.#services = parts.services;
    this.#records = parts.records;
    this.#maps = parts.maps;
    this.#disks = parts.disks;
    this.#hot = parts.hot;
    this.#openResize = parts.services.journal.kind<ResizeIntent>(
      "instance.resize",
      async ({ name, pool, from }, cause) => {
        const record = this.#records.find(name);
        if (!record) return;
        // Back to `from` after a failure, as a profile stays changed when one of its instances cannot follow. After a kill the settings may have
        // changed since, so they decide.
        const size = cause === "failed" && from !== undefined
          ? from
          : Object.values(this.#records.expand(record).devices).find(isRoot)?.size;
        const { quota } = this.#services.pools.driver(pool).facets;
        const volume = volumeOf(name);
        const sizeBytes = size ? parseSizeBytes(size) : undefined;
        await this.#services.mounts.alone(
          pool,
          volume,
          async () => await quota?.set(volume, sizeBytes, { evenBelowUse: true }),
        );
      },
    );
  }

  /** @returns A note for the client: which keys take effect with the next start.
   * @throws {LidoError} bad_request with LXD's texts; nothing has changed then. */
  async apply(name: string, settings: InstanceSettings, options: UpdateOptions = {}): Promise<string | undefined> {
    const before = this.#records.get(name);
    const ranges = await this.#maps.ranges();
    const after: InstanceRecord = {
      ...before,
      ...settings,
      architecture: settings.architecture === "" ? before.architecture : architectureName(settings.architecture),
      config: merge(settings.config, {}),
    };
    this.#check(before, after);
    const { config, devices } = this.#records.expand(after);
    const old = this.#records.expand(before);
    for (const disk of disksOf(devices)) {
      if (!sameDevice(old.devices[disk.device], devices[disk.device])) await this.#disks.check(name, disk);
    }
    await this.#limit(
      name,
      { from: old.config, to: config },
      () =>
        this.#carryOut(name, old.devices, devices, options, () => {
          const volatile = { ...this.#plan(name, config, ranges), ...seedOf(old.config, config) };
          this.#records.update(name, { ...after, config: { ...after.config, ...volatile } });
        }),
    );
    await this.#tellGuest(name, old);
    this.#services.events.lifecycle("instance-updated", `/1.0/instances/${name}`);
    return this.#noteOf(name, old.config, config);
  }

  /** Applies the change of a profile to an instance. @param before The instance's expanded settings before the change.
   * @returns As `apply`. @throws {LidoError} When it cannot; the container goes on as it was, and has the profile's settings from its next start. */
  async follow(name: string, before: Expanded, options: UpdateOptions = {}): Promise<string | undefined> {
    const record = this.#records.find(name);
    if (!record) return undefined;
    const ranges = await this.#maps.ranges();
    const { config, devices } = this.#records.expand(record);
    let isRecorded = false;
    const planNext = () => {
      isRecorded = true;
      this.#records.setConfig(name, { ...this.#plan(name, config, ranges), ...seedOf(before.config, config) });
    };
    try {
      checkExpandedDevices(devices);
      const carryOut = () => this.#carryOut(name, before.devices, devices, options, planNext);
      await this.#limit(name, { from: before.config, to: config }, carryOut);
    } catch (error) {
      if (!isRecorded) this.#services.database.transaction(planNext);
      throw error;
    }
    await this.#tellGuest(name, before);
    return this.#noteOf(name, before.config, config);
  }

  async #tellGuest(name: string, before: Expanded): Promise<void> {
    const after = this.#records.expand(this.#records.get(name));
    await this.#services.guests.changed({ name, ...before }, { name, ...after });
  }

  /** Changes a running container's limits, then does the rest of a change; rolls the limits back if the rest fails. */
  async #limit(
    name: string,
    { from, to }: { from: Config; to: Config },
    rest: () => Promise<void>,
  ): Promise<void> {
    const { runtime, log } = this.#services;
    const [before, after] = [limitsOf(from), limitsOf(to)];
    if (!runtime.get(name) || isDeepStrictEqual(before, after)) return await rest();
    await runtime.setLimits(name, after);
    try {
      await rest();
    } catch (error) {
      await runtime.setLimits(name, before).catch((reason) =>
        log.warn({ instance: name, error: messageOf(reason) }, "could not give an instance its old limits back")
      );
      throw error;
    }
  }

  /** Sets the limits of a container that an earlier daemon started: it may have been killed between setting the limits and recording them. */
  limitAgain(name: string): void {
    const limits = limitsOf(this.#records.expand(this.#records.get(name)).config);
    this.#services.runtime.setLimits(name, limits).catch((error) =>
      this.#services.log.warn({ instance: name, error: messageOf(error) }, "could not limit a running instance again")
    );
  }

  #noteOf(name: string, before: Config, after: Config): string | undefined {
    if (!this.#services.runtime.get(name)) return undefined;
    return restartNote(name, keysThatWait(before, after));
  }

  #plan(name: string, config: Config, ranges: Awaited<ReturnType<IdmapAllocator["ranges"]>>): Config {
    try {
      return this.#maps.plan(name, config, ranges).volatile;
    } catch (error) {
      throw prefixed("Failed to get ID map: ", error);
    }
  }

  #check(before: InstanceRecord, after: InstanceRecord): void {
    try {
      checkInstanceConfig(after.config);
      checkForHost(after.config, before.config);
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

  /** Changes the host, then the database; if the host refuses, the host is rolled back to the database's state. */
  async #carryOut(
    name: string,
    before: Devices,
    devices: Devices,
    options: UpdateOptions,
    record: () => void,
  ): Promise<void> {
    const { device } = rootDisk(devices);
    const oldSize = Object.values(before).find(isRoot)?.size ?? "";
    const change = { devices, lazy: options.lazy ?? false, progress: options.progress ?? untold };
    if ((device.size ?? "") === oldSize) return await this.#hot.change(name, { ...change, record });
    const quota = this.#needQuota(device);
    await using intent = this.#openResize({ name, pool: device.pool!, from: oldSize });
    const volume = volumeOf(name);
    const sizeBytes = device.size ? parseSizeBytes(device.size) : undefined;
    await this.#services.mounts.alone(device.pool!, volume, async () => await quota?.set(volume, sizeBytes));
    await this.#hot.change(name, { ...change, record: () => intent.commit(record) });
  }

  /** @throws {LidoError} bad_request for a size when the pool has no quotas. */
  #needQuota(device: Config): Quota | undefined {
    const driver = this.#services.pools.driver(device.pool!);
    if (driver.facets.quota || !device.size) return driver.facets.quota;
    throw new LidoError(
      "bad_request",
      `Cannot limit the size of the root disk: ${driver.absent.quota ?? "the storage pool has no quotas"}`,
    );
  }
}

/** cloud-init runs anew when the instance's id is another one. @returns Another id if a key that cloud-init reads was changed. */
function seedOf(before: Config, after: Config): Config {
  const isSeed = (key: string): boolean =>
    key.startsWith("cloud-init.") || /^user\.(user-data|vendor-data|network-config)$/.test(key);
  const keys = [...Object.keys(before), ...Object.keys(after)].filter(isSeed);
  if (keys.every((key) => before[key] === after[key])) return {};
  return { "volatile.cloud-init.instance-id": randomUUID() };
}
