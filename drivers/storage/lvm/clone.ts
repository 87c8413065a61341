import type { Clone, CopyOptions, Volume } from "../driver.ts";
import { setOwner } from "../directory_volumes.ts";
import { flush } from "../tree.ts";
import { filesystemOn } from "./filesystem.ts";
import type { LvmGroup } from "./group.ts";
import type { LvmQuota } from "./volume_size.ts";

/** Copies that share blocks: thin snapshots, each a volume of its own. */
export class LvmClone implements Clone {
  readonly cost = "instant";
  readonly carriesSnapshots = true;
  readonly #group: LvmGroup;
  readonly #quota: LvmQuota;

  constructor(group: LvmGroup, quota: LvmQuota) {
    this.#group = group;
    this.#quota = quota;
  }

  async clone(source: Volume, target: Volume, options: CopyOptions = {}): Promise<void> {
    const group = this.#group;
    group.refuseFull();
    await settle(group, source);
    const name = group.nameOf(target), from = group.nameOf(source);
    const isSnapshot = target.snapshot !== undefined;
    await copyThin(group, from, name, target, isSnapshot);
    if (isSnapshot) return;
    if (options.sizeBytes !== undefined) await this.#quota.resize(target, name, options.sizeBytes);
    if (options.mode === undefined) return;
    await group.mount(target);
    await setOwner(group.path(target), target, options);
    await group.unmount(target);
  }
}

/** Flushes a mounted btrfs before a snapshot: LVM freezes mounted filesystems, but cannot find a btrfs by its device. */
export async function settle(group: LvmGroup, volume: Volume): Promise<void> {
  const path = group.path(volume);
  if ((await group.host.mounts.at(path))?.type === "btrfs") await flush(group.host, path);
}

/** Makes an inactive thin snapshot as a volume of its own, with its own UUID. @param volume Its place serves as a temporary mount point. */
export async function copyThin(
  group: LvmGroup,
  from: string,
  to: string,
  volume: Volume,
  isReadonly: boolean,
): Promise<void> {
  const known = group.type(from);
  const isPlain = known === "ext4";
  const options = { isThin: true, isReadonly: isPlain && isReadonly, isActive: !isPlain };
  await group.made(to, group.size(from)!, () => group.tool.snapshot(group.name, from, to, options));
  try {
    const type = known ?? await filesystemOn(group.device(to));
    group.setType(from, type);
    group.setType(to, type);
    if (isPlain) return;
    if (type === "xfs") {
      // The UUID can be changed only after the log of a frozen filesystem was replayed.
      await group.mountAt(volume, to, type, ["nouuid"]);
      await group.unmountOnly(volume);
    }
    await group.filesystems.renewUuid(group.device(to), type);
    if (isReadonly) await group.tool.setReadonly(group.name, to);
  } finally {
    if (!isPlain) await group.deactivateLogical(to);
  }
}
