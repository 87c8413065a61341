import type { Clone, CopyOptions, Volume } from "../driver.ts";
import { setOwner } from "../directory_volumes.ts";
import { flush } from "../tree.ts";
import type { LvmDriver } from "./driver.ts";
import { filesystemOn } from "./filesystem.ts";

/** Copies that share blocks: snapshots of a thin volume, each a volume of its own. */
export class LvmClone implements Clone {
  readonly cost = "instant";
  readonly carriesSnapshots = true;
  readonly #driver: LvmDriver;

  constructor(driver: LvmDriver) {
    this.#driver = driver;
  }

  async clone(source: Volume, target: Volume, options: CopyOptions = {}): Promise<void> {
    const driver = this.#driver;
    driver.refuseFull();
    await settle(driver, source);
    const name = driver.name(target), from = driver.name(source);
    const isSnapshot = target.snapshot !== undefined;
    await copyThin(driver, from, name, target, isSnapshot);
    if (isSnapshot) return;
    if (options.sizeBytes !== undefined) await driver.quota.resize(target, name, options.sizeBytes);
    if (options.mode === undefined) return;
    await driver.mount(target);
    await setOwner(driver.path(target), target, options);
    await driver.unmount(target);
  }
}

/** LVM freezes what is mounted while it takes a snapshot, but cannot find a btrfs by its device: that is written out before. */
export async function settle(driver: LvmDriver, volume: Volume): Promise<void> {
  const path = driver.path(volume);
  if ((await driver.host.mounts.at(path))?.type === "btrfs") await flush(driver.host, path);
}

/** A thin snapshot that is a volume of its own, with a UUID of its own; inactive. @param volume Whose place it may be mounted at for a moment. */
export async function copyThin(
  driver: LvmDriver,
  from: string,
  to: string,
  volume: Volume,
  isReadonly: boolean,
): Promise<void> {
  const known = driver.types.get(from);
  const isPlain = known === "ext4";
  const options = { isThin: true, isReadonly: isPlain && isReadonly, isActive: !isPlain };
  await driver.made(to, driver.sizes.get(from)!, () => driver.tool.snapshot(driver.group, from, to, options));
  try {
    const type = known ?? await filesystemOn(driver.device(to));
    driver.types.set(from, type).set(to, type);
    if (isPlain) return;
    if (type === "xfs") {
      // The log of one that was frozen must be replayed before.
      await driver.mountAt(volume, to, type, ["nouuid"]);
      await driver.unmountOnly(volume);
    }
    await driver.filesystems.renewUuid(driver.device(to), type);
    if (isReadonly) await driver.tool.setReadonly(driver.group, to);
  } finally {
    if (!isPlain) await driver.deactivateLogical(to);
  }
}
