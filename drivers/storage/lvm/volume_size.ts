import { statfs } from "node:fs/promises";
import { LidoError } from "../../../api/errors.ts";
import { showBytes } from "../../../api/size.ts";
import { CommandError } from "../../host/host.ts";
import { CannotShrink, type Quota, type Volume } from "../driver.ts";
import { describe } from "../layout.ts";
import { filesystemOn, type FilesystemType, refuseTooSmall } from "./filesystem.ts";
import type { LvmGroup } from "./group.ts";

interface SizeChange {
  readonly volume: Volume;
  /** Logical name. */
  readonly name: string;
  readonly type: FilesystemType;
  /** Rounded up to whole extents. */
  readonly sizeBytes: bigint;
  readonly isMounted: boolean;
}

/** The size of a logical volume and of the filesystem on it, which is the volume's limit. */
export class LvmQuota implements Quota {
  readonly #group: LvmGroup;

  constructor(group: LvmGroup) {
    this.#group = group;
  }

  async set(volume: Volume, sizeBytes: bigint | undefined): Promise<void> {
    if (sizeBytes !== undefined) await this.resize(volume, this.#group.nameOf(volume), sizeBytes);
  }

  // deno-lint-ignore require-await -- async in the contract
  async get(volume: Volume): Promise<bigint | undefined> {
    return this.#group.size(this.#group.nameOf(volume));
  }

  async usedBytes(volume: Volume): Promise<bigint> {
    const path = this.#group.path(volume);
    if (!await this.#group.host.mounts.at(path)) {
      throw new LidoError("not_implemented", `Cannot tell what ${describe(volume)} takes up: it is not mounted`);
    }
    const { blocks, bfree, bsize } = await statfs(path, { bigint: true });
    return (blocks - bfree) * bsize;
  }

  /** Grows or shrinks a logical volume and its filesystem. @param name May be a temporary one; it is mounted at its parent's path. */
  async resize(volume: Volume, name: string, sizeBytes: bigint): Promise<void> {
    const group = this.#group;
    const before = group.size(name)!;
    const after = group.extents(sizeBytes);
    if (after === before) return;
    const path = group.path(volume);
    const isMounted = await group.host.mounts.at(path) !== undefined;
    if (!isMounted) await group.tool.activate(group.name, name);
    try {
      const type = await filesystemOn(group.device(name));
      const isFixed = group.thinPool === undefined && group.snapshotNames(volume).length > 0;
      if (isFixed) {
        throw new LidoError("bad_request", `Cannot resize ${describe(volume)}: classic volumes with snapshots cannot`);
      }
      refuseTooSmall(describe(volume), type, after);
      const change = { volume, name, type, sizeBytes: after, isMounted };
      if (after > before) await this.#grow(change);
      else await this.#shrink(change);
    } finally {
      if (!isMounted) await group.unmountOnly(volume);
      if (!isMounted) await group.tool.deactivate(group.name, name);
    }
    group.setSize(name, after);
  }

  async #grow({ volume, name, type, sizeBytes, isMounted }: SizeChange): Promise<void> {
    const group = this.#group;
    group.refuseFull();
    await group.tool.resize(group.name, name, sizeBytes);
    // A mounted filesystem grows without a check before.
    if (!isMounted) await group.mountAt(volume, name, type, type === "xfs" ? ["nouuid"] : []);
    await group.filesystems.grow(group.device(name), type, group.path(volume));
  }

  async #shrink({ volume, name, type, sizeBytes, isMounted }: SizeChange): Promise<void> {
    const group = this.#group;
    if (type === "xfs") throw new CannotShrink(describe(volume));
    if (isMounted) throw new LidoError("bad_request", `Cannot shrink ${describe(volume)}: In use`);
    try {
      if (type === "ext4") await group.filesystems.shrinkExt4(group.device(name), sizeBytes);
      else {
        await group.mountAt(volume, name, type, []);
        await group.filesystems.shrinkBtrfs(group.path(volume), sizeBytes);
        await group.unmountOnly(volume);
      }
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      const to = showBytes(sizeBytes);
      throw new LidoError("bad_request", `Cannot shrink ${describe(volume)} to ${to}: ${error.message}`);
    }
    await group.tool.resize(group.name, name, sizeBytes);
  }
}
