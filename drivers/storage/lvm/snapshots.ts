import { LidoError } from "../../../api/errors.ts";
import type { Progress, Snapshots, Volume, WatchOptions } from "../driver.ts";
import { copyThin, settle } from "./clone.ts";
import type { LvmDriver } from "./driver.ts";
import { filesystemOn } from "./filesystem.ts";
import { temporaryName } from "./layout.ts";
import { watchMerge } from "./merge_progress.ts";

/** On the origin while a classic snapshot is merged into it, which takes the snapshot away: by this it is made again. */
const restoreTag = "lido_restore_";
const mergePauseMs = 1000, mergeLooksMax = 600;

/** Snapshots of logical volumes. Thin ones are volumes of their own; classic ones keep what their origin had, and go with it. */
export class LvmSnapshots implements Snapshots {
  readonly cost = "instant";
  readonly #driver: LvmDriver;

  constructor(driver: LvmDriver) {
    this.#driver = driver;
  }

  async create(snapshot: Volume): Promise<void> {
    const driver = this.#driver;
    const name = driver.name(snapshot), parent = driver.name(parentOf(snapshot));
    driver.refuseFull();
    await settle(driver, parentOf(snapshot));
    const isThin = driver.thinPool !== undefined;
    const isBtrfs = await this.#isBtrfs(parentOf(snapshot));
    if (isThin && isBtrfs) return await copyThin(driver, parent, name, snapshot, true);
    await driver.made(
      name,
      driver.sizes.get(parent)!,
      () => driver.tool.snapshot(driver.group, parent, name, { isThin, isReadonly: !isBtrfs, isActive: false }),
    );
    if (isThin) return;
    if (isBtrfs) {
      await driver.filesystems.renewUuid(driver.device(name), "btrfs");
      await driver.tool.setReadonly(driver.group, name);
    }
    await driver.deactivate(snapshot);
  }

  async delete(snapshot: Volume): Promise<void> {
    const driver = this.#driver;
    if (driver.sizes.has(driver.name(snapshot))) await driver.unmount(snapshot);
    await driver.remove(driver.name(snapshot));
  }

  async rename(snapshot: Volume, name: string): Promise<void> {
    const driver = this.#driver;
    await driver.unmount(snapshot);
    await driver.renameLogical(driver.name(snapshot), driver.name({ ...snapshot, snapshot: name }));
  }

  // deno-lint-ignore require-await -- async as the contract
  async list(parent: Volume): Promise<string[]> {
    return this.#driver.snapshotNames(parent);
  }

  /** A merge that has begun goes to its end, whoever gives up on it. */
  async restore(snapshot: Volume, _lost?: readonly string[], { progress }: WatchOptions = {}): Promise<void> {
    const parent = parentOf(snapshot);
    await this.#putBack(parent);
    await this.#driver.unmount(parent);
    await this.#driver.unmount(snapshot);
    if (this.#driver.thinPool === undefined) await this.#merge(snapshot, progress);
    else await this.#exchange(snapshot);
  }

  async afterRestore(parent: Volume): Promise<void> {
    const driver = this.#driver;
    if (driver.thinPool === undefined) return await this.#remake(parent);
    await this.#putBack(parent);
    const name = driver.name(parent);
    const left = [temporaryName(name, "new"), temporaryName(name, "old")].filter((one) => driver.sizes.has(one));
    await driver.remove(...left);
  }

  /** A copy of the snapshot takes the parent's name; what the parent was is left beside it. */
  async #exchange(snapshot: Volume): Promise<void> {
    const driver = this.#driver, parent = parentOf(snapshot);
    const name = driver.name(parent), made = temporaryName(name, "new"), kept = temporaryName(name, "old");
    driver.refuseFull();
    await driver.remove(...[made, kept].filter((one) => driver.sizes.has(one)));
    await copyThin(driver, driver.name(snapshot), made, parent, false);
    // The volume keeps the size that it has now.
    if (driver.sizes.get(made)! < driver.sizes.get(name)!) {
      await driver.quota.resize(parent, made, driver.sizes.get(name)!);
    }
    await driver.renameLogical(name, kept);
    try {
      await driver.renameLogical(made, name);
    } catch (error) {
      await driver.renameLogical(kept, name);
      throw error;
    }
  }

  /** Killed between the two renames, the parent has no name of its own: it gets it back. */
  async #putBack(parent: Volume): Promise<void> {
    const driver = this.#driver, name = driver.name(parent), kept = temporaryName(name, "old");
    if (!driver.sizes.has(name) && driver.sizes.has(kept)) await driver.renameLogical(kept, name);
  }

  async #merge(snapshot: Volume, progress: Progress | undefined): Promise<void> {
    const driver = this.#driver, parent = driver.name(parentOf(snapshot)), name = driver.name(snapshot);
    await driver.tool.tag(driver.group, parent, `${restoreTag}${snapshot.snapshot}`, true);
    await driver.tool.activate(driver.group, parent);
    using _watched = progress && watchMerge(driver.group, parent, progress);
    await driver.tool.merge(driver.group, name);
    driver.sizes.delete(name);
  }

  /** Makes the snapshot that was merged again: the origin is what it was. */
  async #remake(parent: Volume): Promise<void> {
    const driver = this.#driver, name = driver.name(parent);
    const find = async () => (await driver.tool.volumes(driver.group))?.find((one) => one.name === name);
    let found = await find();
    const tag = found?.tags.find((one) => one.startsWith(restoreTag));
    if (!found || tag === undefined) return await driver.deactivate(parent);
    if (found.isMerging) {
      // Put off, or cut off, it goes on by itself when the origin is activated anew, and nothing tells when it is done.
      await driver.deactivate(parent);
      await driver.tool.activate(driver.group, name);
      for (let looks = 0; found?.isMerging; looks++) {
        if (looks === mergeLooksMax) {
          throw new LidoError(
            "unavailable",
            `Logical volume "${name}" is still being restored; "lido admin check" tells`,
          );
        }
        await new Promise((resolve) => setTimeout(resolve, mergePauseMs));
        found = await find();
      }
    }
    const snapshot: Volume = { ...parent, snapshot: tag.slice(restoreTag.length) };
    const isThere = (await driver.tool.volumes(driver.group))?.some((one) => one.name === driver.name(snapshot));
    if (isThere) driver.sizes.set(driver.name(snapshot), driver.sizes.get(name)!);
    else await this.create(snapshot);
    await driver.tool.tag(driver.group, name, tag, false);
    await driver.deactivate(parent);
  }

  /** A snapshot of btrfs needs a UUID of its own from the start, to be mounted beside its parent. */
  async #isBtrfs(parent: Volume): Promise<boolean> {
    const driver = this.#driver, name = driver.name(parent);
    const known = driver.types.get(name) ?? (await driver.host.mounts.at(driver.path(parent)))?.type;
    if (known) return known === "btrfs";
    await driver.tool.activate(driver.group, name);
    try {
      const type = await filesystemOn(driver.device(name));
      driver.types.set(name, type);
      return type === "btrfs";
    } finally {
      await driver.deactivate(parent);
    }
  }
}

function parentOf({ snapshot: _, ...parent }: Volume): Volume {
  return parent;
}
