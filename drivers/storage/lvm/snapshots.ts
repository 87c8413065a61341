import { LidoError } from "../../../api/errors.ts";
import type { Progress, Snapshots, Volume, WatchOptions } from "../driver.ts";
import { copyThin, settle } from "./clone.ts";
import { filesystemOn } from "./filesystem.ts";
import { temporaryName } from "./layout.ts";
import { watchMerge } from "./merge_progress.ts";
import type { LvmGroup } from "./group.ts";
import type { LvmQuota } from "./volume_size.ts";

/** Tag on the origin while a classic snapshot is merged into it. The merge removes the snapshot; the tag's name tells how to make it again. */
const restoreTag = "lido_restore_";
const mergePauseMs = 1000, mergeLooksMax = 600;

/** Snapshots of logical volumes. Thin ones are volumes of their own; classic ones keep their origin's old blocks and are deleted with it. */
export class LvmSnapshots implements Snapshots {
  readonly cost = "instant";
  readonly #group: LvmGroup;
  readonly #quota: LvmQuota;

  constructor(group: LvmGroup, quota: LvmQuota) {
    this.#group = group;
    this.#quota = quota;
  }

  async create(snapshot: Volume): Promise<void> {
    const group = this.#group;
    const name = group.nameOf(snapshot), parent = group.nameOf(parentOf(snapshot));
    group.refuseFull();
    await settle(group, parentOf(snapshot));
    const isThin = group.thinPool !== undefined;
    const isBtrfs = await this.#isBtrfs(parentOf(snapshot));
    if (isThin && isBtrfs) return await copyThin(group, parent, name, snapshot, true);
    await group.made(
      name,
      group.size(parent)!,
      () => group.tool.snapshot(group.name, parent, name, { isThin, isReadonly: !isBtrfs, isActive: false }),
    );
    if (isThin) return;
    if (isBtrfs) {
      await group.filesystems.renewUuid(group.device(name), "btrfs");
      await group.tool.setReadonly(group.name, name);
    }
    await group.deactivate(snapshot);
  }

  async delete(snapshot: Volume): Promise<void> {
    const group = this.#group;
    if (group.has(group.nameOf(snapshot))) await group.unmount(snapshot);
    await group.remove(group.nameOf(snapshot));
  }

  async rename(snapshot: Volume, name: string): Promise<void> {
    const group = this.#group;
    await group.unmount(snapshot);
    await group.renameLogical(group.nameOf(snapshot), group.nameOf({ ...snapshot, snapshot: name }));
  }

  // deno-lint-ignore require-await -- async in the contract
  async list(parent: Volume): Promise<string[]> {
    return this.#group.snapshotNames(parent);
  }

  /** A merge that has begun cannot be stopped: `signal` is ignored. */
  async restore(snapshot: Volume, _lost?: readonly string[], { progress }: WatchOptions = {}): Promise<void> {
    const parent = parentOf(snapshot);
    await this.#putBack(parent);
    await this.#group.unmount(parent);
    await this.#group.unmount(snapshot);
    if (this.#group.thinPool === undefined) await this.#merge(snapshot, progress);
    else await this.#exchange(snapshot);
  }

  async afterRestore(parent: Volume): Promise<void> {
    const group = this.#group;
    if (group.thinPool === undefined) return await this.#remake(parent);
    await this.#putBack(parent);
    const name = group.nameOf(parent);
    const left = [temporaryName(name, "new"), temporaryName(name, "old")].filter((one) => group.has(one));
    await group.remove(...left);
  }

  /** Gives a copy of the snapshot the parent's name; the previous content stays beside it under a temporary name. */
  async #exchange(snapshot: Volume): Promise<void> {
    const group = this.#group, parent = parentOf(snapshot);
    const name = group.nameOf(parent), made = temporaryName(name, "new"), kept = temporaryName(name, "old");
    group.refuseFull();
    await group.remove(...[made, kept].filter((one) => group.has(one)));
    await copyThin(group, group.nameOf(snapshot), made, parent, false);
    // The volume keeps its present size.
    if (group.size(made)! < group.size(name)!) {
      await this.#quota.resize(parent, made, group.size(name)!);
    }
    await group.renameLogical(name, kept);
    try {
      await group.renameLogical(made, name);
    } catch (error) {
      await group.renameLogical(kept, name);
      throw error;
    }
  }

  /** After a kill between the two renames, gives the parent its name back. */
  async #putBack(parent: Volume): Promise<void> {
    const group = this.#group, name = group.nameOf(parent), kept = temporaryName(name, "old");
    if (!group.has(name) && group.has(kept)) await group.renameLogical(kept, name);
  }

  async #merge(snapshot: Volume, progress: Progress | undefined): Promise<void> {
    const group = this.#group, parent = group.nameOf(parentOf(snapshot)), name = group.nameOf(snapshot);
    await group.tool.tag(group.name, parent, `${restoreTag}${snapshot.snapshot}`, true);
    await group.tool.activate(group.name, parent);
    using _watched = progress && watchMerge(group.name, parent, progress);
    await group.tool.merge(group.name, name);
    group.forget(name);
  }

  /** Makes the merged snapshot again: the origin has its content. */
  async #remake(parent: Volume): Promise<void> {
    const group = this.#group, name = group.nameOf(parent);
    const find = async () => (await group.tool.volumes(group.name))?.find((one) => one.name === name);
    let found = await find();
    const tag = found?.tags.find((one) => one.startsWith(restoreTag));
    if (!found || tag === undefined) return await group.deactivate(parent);
    if (found.isMerging) {
      // A deferred or interrupted merge continues by itself when the origin is activated again; no event tells its end.
      await group.deactivate(parent);
      await group.tool.activate(group.name, name);
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
    const isThere = (await group.tool.volumes(group.name))?.some((one) => one.name === group.nameOf(snapshot));
    if (isThere) group.setSize(group.nameOf(snapshot), group.size(name)!);
    else await this.create(snapshot);
    await group.tool.tag(group.name, name, tag, false);
    await group.deactivate(parent);
  }

  /** A snapshot of btrfs needs a UUID of its own from the start, so that it can be mounted while its parent is. */
  async #isBtrfs(parent: Volume): Promise<boolean> {
    const group = this.#group, name = group.nameOf(parent);
    const known = group.type(name) ?? (await group.host.mounts.at(group.path(parent)))?.type;
    if (known) return known === "btrfs";
    await group.tool.activate(group.name, name);
    try {
      const type = await filesystemOn(group.device(name));
      group.setType(name, type);
      return type === "btrfs";
    } finally {
      await group.deactivate(parent);
    }
  }
}

function parentOf({ snapshot: _, ...parent }: Volume): Volume {
  return parent;
}
