import { randomUUID } from "node:crypto";
import { rename, rm } from "node:fs/promises";
import { AlreadyThere } from "../../drivers/storage/driver.ts";
import { isBoth } from "../volumes/disk_look.ts";
import { refuseRunning } from "./create.ts";
import type { InstanceServices } from "./services.ts";
import type { InstanceTable } from "./table.ts";
import { type Rootfs, volumeLock, volumeOf } from "./disks/rootfs.ts";
import type { OpenIntent } from "../journal/journal.ts";

interface RenameIntent {
  name: string;
  to: string;
  pool: string;
}

/** Renames a stopped instance: its volume on disk, its rows, its log directory. */
export class Renames {
  readonly #services: InstanceServices;
  readonly #records: InstanceTable;
  readonly #rootfs: Rootfs;
  readonly #open: OpenIntent<RenameIntent>;

  constructor(services: InstanceServices, records: InstanceTable, rootfs: Rootfs) {
    this.#services = services;
    this.#records = records;
    this.#rootfs = rootfs;
    // The database still has the old name: rename the volume back.
    this.#open = services.journal.kind<RenameIntent>("instance.rename", async ({ name, to, pool }) => {
      const driver = services.pools.driver(pool);
      // After a kill the snapshots may have the new name and the volume the old one, so both are checked.
      const snapshots = await driver.facets.snapshot?.list(volumeOf(to)) ?? [];
      const isOurs = snapshots.length > 0 || await driver.exists(volumeOf(to));
      if (isOurs && !await isBoth(driver, "container", name, to)) {
        await services.mounts.alone(pool, volumeOf(to), () => driver.rename(volumeOf(to), name));
      }
      await this.#renameLogs(to, name);
    });
  }

  async rename(name: string, to: string): Promise<void> {
    const pool = this.#rootfs.poolOf(this.#records.get(name));
    refuseRunning(this.#services, to);
    await this.#services.volumes.look.refuseTaken(pool, volumeOf(to));
    // Logs of a deleted instance; as LXD.
    await rm(`${this.#services.logs}/${to}`, { recursive: true, force: true });
    await using intent = this.#open({ name, to, pool });
    const driver = this.#services.pools.driver(pool);
    const move = () => driver.rename(volumeOf(name), to);
    const commit = () => {
      this.#records.update(name, { name: to });
      // The new id makes cloud-init run as in a new instance, as on LXD.
      this.#records.setConfig(to, { "volatile.cloud-init.instance-id": randomUUID() });
      this.#services.database.run(
        `UPDATE storage_volumes SET name = ? WHERE type = 'container' AND name = ?
         AND pool_id = (SELECT id FROM storage_pools WHERE name = ?)`,
        to,
        name,
        pool,
      );
    };
    // The lock keeps it from being renamed while it is copied.
    await this.#services.volumes.locks.hold([volumeLock(pool, name)], async () => {
      await this.#services.mounts.alone(pool, volumeOf(name), move).catch((error) => {
        if (error instanceof AlreadyThere) intent.commit(() => {});
        throw error;
      });
      await this.#renameLogs(name, to);
      intent.commit(commit);
    });
    this.#services.events.lifecycle("instance-renamed", `/1.0/instances/${to}`, { old_name: name });
  }

  async #renameLogs(name: string, to: string): Promise<void> {
    await rename(`${this.#services.logs}/${name}`, `${this.#services.logs}/${to}`).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOENT") throw error;
      },
    );
  }
}
