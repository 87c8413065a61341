import { LidoError } from "../../api/errors.ts";
import type { IdMap } from "../../drivers/runtime/runtime.ts";
import type { Driver, Volume } from "../../drivers/storage/driver.ts";
import { isTrue } from "./config_keys.ts";
import { rootDisk } from "./devices.ts";
import { formatIdmap, parseIdmap } from "./idmaps.ts";
import type { InstanceServices } from "./ports.ts";
import type { InstanceRecord, InstanceRecords } from "./records.ts";
import { prefixed } from "./sharing.ts";
import { shiftSteps } from "./shift_steps.ts";
import { render, templatesFor, type Trigger } from "./templates.ts";

interface ShiftIntent {
  name: string;
  pool: string;
  from: string;
  to: string;
}

/** Tells how many files a change of owners has behind it. */
export type ShiftProgress = (entries: number) => void;

/** Host ids of root in a container, for files the daemon writes into it. */
interface Owner {
  uid: number;
  gid: number;
}

/** An instance's root filesystem: where it is, whose ids its files have, and the image's templates in it. */
export class Rootfs {
  readonly #services: InstanceServices;
  readonly #records: InstanceRecords;
  readonly #openShift: (payload: ShiftIntent) => ReturnType<ReturnType<InstanceServices["journal"]["kind"]>>;

  constructor(services: InstanceServices, records: InstanceRecords) {
    this.#services = services;
    this.#records = records;
    this.#openShift = services.journal.kind<ShiftIntent>("instance.shift", async (payload, cause) => {
      if (!this.#records.find(payload.name)) return;
      // After a kill the change is completed; a failed one is taken back.
      const [from, to] = cause === "crashed" ? [payload.from, payload.to] : [payload.to, payload.from];
      const driver = this.#services.pools.driver(payload.pool);
      const volume = volumeOf(payload.name);
      await driver.mount(volume);
      await this.#services.ids.shift(rootfsOf(driver, volume), parseIdmap(from), parseIdmap(to));
      this.#records.setConfig(payload.name, { "volatile.last_state.idmap": to });
    });
  }

  /** The pool that an instance's root disk is on. */
  poolOf(record: InstanceRecord): string {
    return rootDisk(this.#records.expand(record).devices).device.pool!;
  }

  /** Mounts the root filesystem and makes its owners fit the map: at no cost where the filesystem can do idmapped mounts, else file by file.
   * @param map Absent for a privileged instance. @returns Its path, and whether it must be mounted with the map. */
  async prepare(
    record: InstanceRecord,
    map: IdMap | undefined,
    progress: ShiftProgress,
  ): Promise<{ rootfs: string; shifted: boolean }> {
    const pool = this.poolOf(record);
    const driver = this.#services.pools.driver(pool);
    const volume = volumeOf(record.name);
    await driver.mount(volume);
    if (!(await this.#services.files.exists(driver.path(volume), "rootfs"))) {
      throw new LidoError(
        "bad_request",
        `Failed to handle idmapped storage: No such file or directory: "${rootfsOf(driver, volume)}"`,
      );
    }
    const onDisk = record.config["volatile.last_state.idmap"] ?? "[]";
    const wanted = formatIdmap(driver.idmappedMounts ? undefined : map);
    if (onDisk !== wanted) {
      await this.#shift({ name: record.name, pool, from: onDisk, to: wanted }, driver, progress);
    }
    return { rootfs: rootfsOf(driver, volume), shifted: driver.idmappedMounts && map !== undefined };
  }

  /** Lets the root filesystem go from the host. */
  async release(record: InstanceRecord): Promise<void> {
    try {
      await this.#services.pools.driver(this.poolOf(record)).unmount(volumeOf(record.name));
    } catch (error) {
      this.#services.log.warn({ instance: record.name, error: String(error) }, "could not unmount a root filesystem");
    }
  }

  /** Writes the image's templates that are due. Their paths lead through the container's tree, so nothing there is trusted. */
  async applyTemplates(record: InstanceRecord, trigger: Trigger): Promise<void> {
    const driver = this.#services.pools.driver(this.poolOf(record));
    const root = driver.path(volumeOf(record.name));
    const metadata = await this.#services.files.read(root, "metadata.yaml");
    if (metadata === undefined) return;
    const { config } = this.#records.expand(record);
    const owner = rootOwner(parseIdmap(record.config["volatile.last_state.idmap"]));
    const values = {
      name: record.name,
      architecture: record.architecture,
      ephemeral: record.ephemeral,
      privileged: isTrue(config["security.privileged"]),
      config,
    };
    for (const file of templatesFor(metadata, trigger)) {
      try {
        const source = await this.#services.files.read(root, `templates/${file.template}`);
        if (source === undefined) {
          throw new LidoError("bad_request", `Failed to read template file: no such file "${file.template}"`);
        }
        const rootfs = `${root}/rootfs`;
        if (file.createOnly && await this.#services.files.exists(rootfs, file.target)) continue;
        await this.#services.files.write(rootfs, file.target, render(source, file, values, trigger), owner);
      } catch (error) {
        throw prefixed(`Failed to apply template "${file.target}": `, error);
      }
    }
  }

  async #shift(payload: ShiftIntent, driver: Driver, progress: ShiftProgress): Promise<void> {
    const { config } = this.#records.expand(this.#records.get(payload.name));
    if (isTrue(config["security.protection.shift"])) {
      throw new LidoError(
        "bad_request",
        "Failed to handle idmapped storage: Container is protected against filesystem shifting",
      );
    }
    let from = payload.from;
    for (const step of shiftSteps(parseIdmap(payload.from), parseIdmap(payload.to))) {
      const to = formatIdmap(step);
      await using intent = this.#openShift({ ...payload, from, to });
      const tree = rootfsOf(driver, volumeOf(payload.name));
      await this.#services.ids.shift(tree, parseIdmap(from), step, { progress });
      intent.commit(() => this.#records.setConfig(payload.name, { "volatile.last_state.idmap": to }));
      from = to;
    }
  }
}

export const volumeOf = (name: string): Volume => ({ type: "container", name });

const rootfsOf = (driver: Driver, volume: Volume): string => `${driver.path(volume)}/rootfs`;

function rootOwner(map: IdMap | undefined): Owner {
  const hostOf = (lines: IdMap["uid"] | undefined): number => lines?.find((line) => line.container === 0)?.host ?? 0;
  return { uid: hostOf(map?.uid), gid: hostOf(map?.gid) };
}
