import { statfs } from "node:fs/promises";
import { LidoError } from "../../../api/errors.ts";
import { showBytes } from "../../../api/size.ts";
import { CommandError } from "../../host/host.ts";
import { CannotShrink, type Quota, type Volume } from "../driver.ts";
import { describe } from "../layout.ts";
import type { LvmDriver } from "./driver.ts";
import { filesystemOn, type FilesystemType, refuseTooSmall } from "./filesystem.ts";

interface SizeChange {
  readonly volume: Volume;
  /** Of the logical volume. */
  readonly name: string;
  readonly type: FilesystemType;
  /** In whole extents. */
  readonly sizeBytes: bigint;
  readonly isMounted: boolean;
}

/** The size of a logical volume and of the filesystem on it, which is the volume's limit. */
export class LvmQuota implements Quota {
  readonly #driver: LvmDriver;

  constructor(driver: LvmDriver) {
    this.#driver = driver;
  }

  async set(volume: Volume, sizeBytes: bigint | undefined): Promise<void> {
    if (sizeBytes !== undefined) await this.resize(volume, this.#driver.name(volume), sizeBytes);
  }

  // deno-lint-ignore require-await -- async as the contract
  async get(volume: Volume): Promise<bigint | undefined> {
    return this.#driver.sizes.get(this.#driver.name(volume));
  }

  async usedBytes(volume: Volume): Promise<bigint> {
    const path = this.#driver.path(volume);
    if (!await this.#driver.host.mounts.at(path)) {
      throw new LidoError("not_implemented", `Cannot tell what ${describe(volume)} takes up: it is not mounted`);
    }
    const { blocks, bfree, bsize } = await statfs(path, { bigint: true });
    return (blocks - bfree) * bsize;
  }

  /** Grows or shrinks a logical volume and what is on it. @param name May be a temporary one, which has its parent's place. */
  async resize(volume: Volume, name: string, sizeBytes: bigint): Promise<void> {
    const driver = this.#driver;
    const before = driver.sizes.get(name)!;
    const after = driver.extents(sizeBytes);
    if (after === before) return;
    const path = driver.path(volume);
    const isMounted = await driver.host.mounts.at(path) !== undefined;
    if (!isMounted) await driver.tool.activate(driver.group, name);
    try {
      const type = await filesystemOn(driver.device(name));
      const isFixed = driver.thinPool === undefined && driver.snapshotNames(volume).length > 0;
      if (isFixed) {
        throw new LidoError("bad_request", `Cannot resize ${describe(volume)}: classic volumes with snapshots cannot`);
      }
      refuseTooSmall(describe(volume), type, after);
      const change = { volume, name, type, sizeBytes: after, isMounted };
      if (after > before) await this.#grow(change);
      else await this.#shrink(change);
    } finally {
      if (!isMounted) await driver.unmountOnly(volume);
      if (!isMounted) await driver.tool.deactivate(driver.group, name);
    }
    driver.sizes.set(name, after);
  }

  async #grow({ volume, name, type, sizeBytes, isMounted }: SizeChange): Promise<void> {
    const driver = this.#driver;
    driver.refuseFull();
    await driver.tool.resize(driver.group, name, sizeBytes);
    // Mounted, a filesystem grows without being checked before.
    if (!isMounted) await driver.mountAt(volume, name, type, type === "xfs" ? ["nouuid"] : []);
    await driver.filesystems.grow(driver.device(name), type, driver.path(volume));
  }

  async #shrink({ volume, name, type, sizeBytes, isMounted }: SizeChange): Promise<void> {
    const driver = this.#driver;
    if (type === "xfs") throw new CannotShrink(describe(volume));
    if (isMounted) throw new LidoError("bad_request", `Cannot shrink ${describe(volume)}: In use`);
    try {
      if (type === "ext4") await driver.filesystems.shrinkExt4(driver.device(name), sizeBytes);
      else {
        await driver.mountAt(volume, name, type, []);
        await driver.filesystems.shrinkBtrfs(driver.path(volume), sizeBytes);
        await driver.unmountOnly(volume);
      }
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      const to = showBytes(sizeBytes);
      throw new LidoError("bad_request", `Cannot shrink ${describe(volume)} to ${to}: ${error.message}`);
    }
    await driver.tool.resize(driver.group, name, sizeBytes);
  }
}
