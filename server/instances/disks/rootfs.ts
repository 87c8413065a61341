import { posix } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import type { InstanceState } from "../../../api/types.ts";
import type { IdMap } from "../../../drivers/host/id_map.ts";
import type { Volume } from "../../../drivers/storage/driver.ts";
import { isTrue } from "../../config/instance.ts";
import { rootDisk } from "../../config/devices.ts";
import { fileCount } from "./file_count.ts";
import { extendsIdmap, formatIdmap, parseIdmap, sameIdmap } from "../../ids/idmaps.ts";
import type { InstanceServices } from "../services.ts";
import type { InstanceRecord, InstanceTable } from "../table.ts";
import { prefixed } from "./sharing.ts";
import type { ShiftProgress } from "./shift_progress.ts";
import { shiftInSteps } from "./shift_steps.ts";
import { render, templatesFor, type Trigger } from "./templates.ts";
import type { OpenIntent } from "../../journal/journal.ts";

interface ShiftIntent {
  name: string;
  pool: string;
  from: string;
  to: string;
}

/** Host ids of root in a container, for files the daemon writes into it. */
interface Owner {
  uid: number;
  gid: number;
}

/** An instance's root filesystem: its path, the id map of its owners, and the image's templates in it. */
export class Rootfs {
  readonly #services: InstanceServices;
  readonly #records: InstanceTable;
  readonly #openShift: OpenIntent<ShiftIntent>;

  constructor(services: InstanceServices, records: InstanceTable) {
    this.#services = services;
    this.#records = records;
    this.#openShift = services.journal.kind<ShiftIntent>("instance.shift", async (payload, cause) => {
      if (!this.#records.find(payload.name)) return;
      // An interrupted change is completed; a failed one is rolled back.
      const [from, to] = cause === "crashed" ? [payload.from, payload.to] : [payload.to, payload.from];
      await using use = await this.#services.mounts.use(payload.pool, volumeOf(payload.name));
      await this.#services.ids.shift(`${use.path}/rootfs`, parseIdmap(from), parseIdmap(to));
      this.#records.setConfig(payload.name, { "volatile.last_state.idmap": to });
    });
  }

  /** The pool that an instance's root disk is on. */
  poolOf(record: InstanceRecord): string {
    return rootDisk(this.#records.expand(record).devices).device.pool!;
  }

  /** Bytes that the root volume uses, and its limit; empty where they are not known. */
  async usage(record: InstanceRecord): Promise<InstanceState["disk"]> {
    try {
      const quota = this.#services.pools.driver(this.poolOf(record)).facets.quota;
      if (!quota) return {};
      const volume = volumeOf(record.name);
      const [used, limit] = await Promise.all([quota.usedBytes(volume), quota.get(volume)]);
      return { root: { usage: Number(used), total: Number(limit ?? 0n) } };
    } catch {
      // An unavailable pool must not hide the rest of the state.
      return {};
    }
  }

  /** Mounts the root filesystem until `release`, and makes its owners fit the map: by an idmapped mount where possible, else by changing each file.
   * @param map Absent for a privileged instance. @returns Its path, and whether it must be mounted with the map. */
  async prepare(
    record: InstanceRecord,
    map: IdMap | undefined,
    progress: ShiftProgress,
  ): Promise<{ rootfs: string; shifted: boolean }> {
    const pool = this.poolOf(record);
    const driver = this.#services.pools.driver(pool);
    const path = await this.#services.mounts.hold(pool, volumeOf(record.name), record.name);
    const rootfs = `${path}/rootfs`;
    await this.#checkTop(path);
    const onDisk = record.config["volatile.last_state.idmap"] ?? "[]";
    const wanted = driver.idmappedMounts ? undefined : map;
    if (!sameIdmap(parseIdmap(onDisk), wanted)) {
      await this.#shift({ name: record.name, pool, from: onDisk, to: formatIdmap(wanted) }, rootfs, progress);
    }
    return { rootfs, shifted: driver.idmappedMounts && map !== undefined };
  }

  /** Checks that `rootfs` is a directory: a volume from an image, a backup or another host may have a symbolic link there, leading out of it.
   * @param volume Path of the volume. */
  async #checkTop(volume: string): Promise<void> {
    const { files } = this.#services;
    if (await files.isDirectory(volume, "rootfs")) return;
    const why = await files.exists(volume, "rootfs") ? "Not a directory" : "No such file or directory";
    throw new LidoError("bad_request", `Failed to handle idmapped storage: ${why}: "${volume}/rootfs"`);
  }

  /** Path on the host while it is mounted. */
  path(record: InstanceRecord): string {
    return `${this.#services.pools.driver(this.poolOf(record)).path(volumeOf(record.name))}/rootfs`;
  }

  /** Releases the instance's hold on its root volume. */
  async release(record: InstanceRecord): Promise<void> {
    await this.#services.mounts.release(this.poolOf(record), volumeOf(record.name), record.name);
  }

  /** After a restart of the daemon: makes a running instance the holder of its root volume. */
  adopt(record: InstanceRecord): void {
    this.#services.mounts.adopt(this.poolOf(record), volumeOf(record.name), record.name);
  }

  /** Writes the image's templates that are due. Their paths lead through the container's tree, so nothing there is trusted. */
  async applyTemplates(record: InstanceRecord, trigger: Trigger): Promise<void> {
    await using use = await this.#services.mounts.use(this.poolOf(record), volumeOf(record.name));
    const root = use.path;
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
        // From the volume's top on, so that "rootfs" itself is not followed if it is a link.
        const target = posix.join("rootfs", posix.normalize(`/${file.target}`));
        if (file.createOnly && await this.#services.files.exists(root, target)) continue;
        await this.#services.files.write(root, target, render(source, file, values, trigger), owner);
      } catch (error) {
        throw prefixed(`Failed to apply template "${file.target}": `, error);
      }
    }
  }

  async #shift(payload: ShiftIntent, root: string, progress: ShiftProgress): Promise<void> {
    const { config } = this.#records.expand(this.#records.get(payload.name));
    // Changing to a map that only has more ids changes no owner that the container has seen.
    const isWider = extendsIdmap(parseIdmap(payload.to), parseIdmap(payload.from));
    if (isTrue(config["security.protection.shift"]) && !isWider) {
      throw new LidoError(
        "bad_request",
        "Failed to handle idmapped storage: Container is protected against filesystem shifting",
      );
    }
    const { name, pool } = payload;
    const files = await fileCount(this.#services.pools.driver(pool), volumeOf(name));
    const tree = progress("container filesystem", files);
    await shiftInSteps(parseIdmap(payload.from), parseIdmap(payload.to), async (from, to, becomes, pass) => {
      await using intent = this.#openShift({ name, pool, from: formatIdmap(from), to: formatIdmap(to) });
      const changed = await this.#services.ids.shift(root, from, to, { progress: tree(pass) }).catch((error) => {
        throw prefixed("Failed to handle idmapped storage: ", error);
      });
      intent.commit(() =>
        this.#records.setConfig(name, { "volatile.last_state.idmap": formatIdmap(becomes(changed)) })
      );
      return changed;
    });
  }
}

/** Name of the root volume in `volumes.locks`, for changes that must not happen while the instance is copied. */
export const volumeLock = (pool: string, name: string): string => `${pool}/container/${name}`;

export const volumeOf = (name: string): Volume => ({ type: "container", name });

function rootOwner(map: IdMap | undefined): Owner {
  const hostOf = (lines: IdMap["uid"] | undefined): number => lines?.find((line) => line.container === 0)?.host ?? 0;
  return { uid: hostOf(map?.uid), gid: hostOf(map?.gid) };
}
