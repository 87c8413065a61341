/** Shared by the crash tests of storage: their requests, and all state that users can see. */
import { chownSync, mkdirSync, readFileSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { StorageVolume } from "../../api/types.ts";
import { quotaGroup } from "../../drivers/host/btrfs/quota.ts";
import { createHost } from "../../drivers/host/real.ts";
import { type Daemon, projectRoot } from "../support/daemon.ts";
import { customVolume, withContent, withContents } from "../support/volume_content.ts";
import { digest, Requests, type State } from "./support.ts";

export class Api extends Requests {
  volumePath(pool: string, name: string): string {
    return join(this.directory, "storage-pools", pool, "custom", `default_${name}`);
  }

  createPool(name: string, driver: string, config: object = {}) {
    return this.ask("POST", "/storage-pools", { name, driver, config });
  }

  /** Writes into a volume that no container uses. */
  async write(poolName: string, name: string, use: (path: string) => void): Promise<void> {
    const pool = await this.ask("GET", `/storage-pools/${poolName}`);
    await withContent(this.directory, pool, { type: "custom", name: `default_${name}` }, use, true);
  }

  deletePool(name: string) {
    return this.ask("DELETE", `/storage-pools/${name}`);
  }

  create(pool: string, name: string, config: object = {}, source: object = {}) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom`, { name, type: "custom", config, source });
  }

  copy(from: string, pool: string, name: string) {
    return this.create(pool, name, {}, { type: "copy", pool: from, name: "work" });
  }

  /** Refreshes the volume "gone". */
  refresh(from: string, pool: string, name: string, more: object = {}) {
    return this.create(pool, "gone", {}, { type: "copy", pool: from, name, refresh: true, ...more });
  }

  delete(pool: string, name: string) {
    return this.ask("DELETE", `/storage-pools/${pool}/volumes/custom/${name}`);
  }

  rename(pool: string, name: string, to: string) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom/${name}`, { name: to });
  }

  move(pool: string, name: string, toPool: string, to: string) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom/${name}`, { name: to, pool: toPool });
  }

  snapshot(pool: string, name: string) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom/work/snapshots`, { name });
  }

  renameSnapshot(pool: string, name: string, to: string) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom/work/snapshots/${name}`, { name: to });
  }

  deleteSnapshot(pool: string, name: string) {
    return this.ask("DELETE", `/storage-pools/${pool}/volumes/custom/work/snapshots/${name}`);
  }

  restore(pool: string, snapshot: string) {
    return this.ask("PUT", `/storage-pools/${pool}/volumes/custom/work`, { restore: snapshot });
  }

  import(pool: string, name: string) {
    const headers = { "content-type": "application/octet-stream", "x-lxd-name": name };
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom`, backup, headers);
  }

  describe(pool: string, name: string, description: string) {
    return this.ask("PATCH", `/storage-pools/${pool}/volumes/custom/${name}`, { description });
  }

  set(pool: string, name: string, config: object) {
    return this.ask("PATCH", `/storage-pools/${pool}/volumes/custom/${name}`, { config });
  }
}

const backup = readFileSync(join(projectRoot, "tests/fixtures/lxd-5.0.2-volume.tar.gz"));

/** All state of storage that users can see, on disk and by the API, without times and ids. */
export async function state(daemon: Daemon, api: Api): Promise<State> {
  const found: State = {};
  for (const pool of await api.ask("GET", "/storage-pools?recursion=1")) {
    const { space } = await api.ask("GET", `/storage-pools/${pool.name}/resources`);
    const total = pool.driver === "dir" ? "the host's" : space.total;
    found[pool.name] = JSON.stringify([pool.driver, pool.config, pool.status, total]);
    const listed = await api.ask("GET", `/storage-pools/${pool.name}/volumes/custom?recursion=1`) as StorageVolume[];
    const volumes = listed.map(({ name }) => customVolume(name));
    await withContents(daemon.directory, pool, volumes, async (paths) => {
      for (const [index, { name, config, description }] of listed.entries()) {
        const path = paths[index]!;
        const isSnapshot = volumes[index]!.snapshot !== undefined;
        found[`${pool.name}/${name}`] = isSnapshot
          ? `${description} ${digest(path)}`
          : JSON.stringify([description, config, digest(path), await limitOf(pool.driver, path)]);
      }
    });
  }
  return found;
}

const host = createHost();
const btrfsType = 0x9123683e;

/** The limit as the kernel has it, not the database. */
async function limitOf(driver: string, path: string): Promise<string> {
  // LVM's limit is the size of the filesystem. ZFS only reports the free space within it, which varies.
  if (driver === "lvm") return String(statfsSync(path).blocks);
  if (driver === "zfs") return "";
  const isBtrfs = Number(statfsSync(path).type) >>> 0 === btrfsType;
  return String(isBtrfs ? quotaGroup(path)?.limitBytes : (await host.quotas.usage(path))?.limitBytes);
}

export function fill(directory: string, seed: string): void {
  mkdirSync(join(directory, "sub"), { recursive: true });
  for (let index = 0; index < 5; index++) {
    writeFileSync(join(directory, "sub", `f${index}`), seed.repeat(1000 * (index + 1)));
  }
  writeFileSync(join(directory, "owned"), seed, { mode: 0o640 });
  chownSync(join(directory, "owned"), 1234, 5678);
}

export function writeLater(volume: string): void {
  writeFileSync(join(volume, "later"), "after the snapshot");
}
