import { LidoError } from "../../api/errors.ts";
import type { SnapshotGroupPost } from "../../api/types.ts";
import { AlreadyThere, type Driver, type Volume } from "../../drivers/storage/driver.ts";
import type { OpenIntent } from "../journal/journal.ts";
import type { Operation } from "../operations/operations.ts";
import { partsOf, watch } from "../operations/progress.ts";
import type { VolumeSnapshots } from "./snapshots.ts";
import { onDisk } from "../store/rows.ts";
import { lockName, url, type Volumes, type VolumesOptions } from "../volumes/volumes.ts";

/** What a snapshot of running containers' volumes needs of instances: their locks, and freezing. */
export interface Standstill {
  /** Runs `work` while nothing else changes these instances. */
  hold<T>(instances: readonly string[], work: () => Promise<T>): Promise<T>;
  /** @returns The given instances that run and are not frozen. */
  running(instances: readonly string[]): string[];
  freeze(instance: string): Promise<void>;
  /** Thaws an instance; does nothing if it does not run or is not frozen. */
  thaw(instance: string): Promise<void>;
}

interface GroupIntent {
  readonly snapshot: string;
  /** Names are those on disk. */
  readonly members: readonly { pool: string; name: string }[];
  /** Instances that are frozen for the snapshots. */
  readonly frozen: readonly string[];
}

interface Member {
  readonly pool: string;
  readonly name: string;
  readonly driver: Driver;
  /** The snapshot of the volume. */
  readonly target: Volume;
}

/** Snapshots of several volumes, of one pool or of several: all or none, and at one moment.
 *
 * A driver that takes several snapshots in one step (ZFS: `createGroup`) does so when all volumes are on one pool of its. Else the running
 * containers that use the volumes are frozen meanwhile: nothing else writes to the volumes, so all snapshots have the content of one moment.
 * The containers are frozen only while the snapshots are taken; the intent names them, so that they are thawed after a failure or a kill, too. */
export class SnapshotGroups {
  readonly #options: VolumesOptions;
  readonly #volumes: Volumes;
  readonly #snapshots: VolumeSnapshots;
  readonly #standstill: Standstill;
  readonly #creating: OpenIntent<GroupIntent>;

  constructor(options: VolumesOptions, volumes: Volumes, snapshots: VolumeSnapshots, standstill: Standstill) {
    this.#options = options;
    this.#volumes = volumes;
    this.#snapshots = snapshots;
    this.#standstill = standstill;
    this.#creating = options.journal.kind<GroupIntent>(
      "volume-snapshot.group",
      async ({ snapshot, members, frozen }) => {
        for (const instance of frozen) await standstill.thaw(instance);
        for (const { pool, name } of members) {
          if (!options.pools.names().includes(pool)) continue;
          await options.pools.driver(pool).facets.snapshot?.delete({ type: "custom", name, snapshot });
        }
      },
    );
  }

  /** @throws {LidoError} bad_request, not_found or conflict; nothing has changed then. */
  create(post: SnapshotGroupPost): Operation {
    const { name: snapshot } = post;
    const members = this.#members(post);
    const expiries = members.map(({ pool, name }) => this.#snapshots.checkNew(pool, name, snapshot, post.expires_at));
    const users = [
      ...new Set(members.flatMap(({ pool, name }) => this.#options.users(pool, name)).map((one) => one.name)),
    ];
    return this.#options.operations.start({
      description: "Creating volume snapshots",
      resources: { storage_volumes: members.map(({ pool, name }) => url(pool, "custom", name)) },
      cancel: () => {},
      run: (operation) =>
        // Lock order: instances before volumes.
        this.#standstill.hold(users, () =>
          this.#volumes.locks.hold(
            members.map(({ pool, target }) => lockName(pool, target)),
            async () => {
              for (const { pool, name, target } of members) {
                await this.#options.pools.ready(pool);
                this.#snapshots.checkNew(pool, name, snapshot, post.expires_at);
                await this.#volumes.look.refuseTakenSnapshot(pool, target);
              }
              const together = togetherOf(members);
              const frozen = together ? [] : this.#standstill.running(users);
              await using open = this.#creating(
                {
                  snapshot,
                  members: members.map(({ pool, target }) => ({ pool, name: target.name })),
                  frozen,
                } satisfies GroupIntent,
              );
              operation.update({ moment: momentOf(together !== undefined, frozen) });
              const made: Member[] = [];
              try {
                if (together) await together(members.map(({ target }) => target));
                else await this.#whileFrozen(frozen, members, operation, made);
              } catch (error) {
                // One snapshot was created by something else since the look: delete only those made here.
                if (error instanceof AlreadyThere) {
                  for (const { driver, target } of made) await driver.facets.snapshot!.delete(target);
                  open.commit(() => {});
                }
                throw error;
              }
              operation.sealUnlessCancelled();
              open.commit(() =>
                members.forEach(({ pool, name }, index) =>
                  this.#snapshots.insert(pool, name, snapshot, expiries[index]!)
                )
              );
              for (const { pool, name } of members) {
                const path = `${url(pool, "custom", name)}/snapshots/${snapshot}`;
                this.#options.events.lifecycle("storage-volume-snapshot-created", path);
              }
            },
          )),
    });
  }

  /** @param made Receives each member whose snapshot has been taken. */
  async #whileFrozen(
    frozen: readonly string[],
    members: readonly Member[],
    operation: Operation,
    made: Member[],
  ): Promise<void> {
    try {
      for (const instance of frozen) await this.#standstill.freeze(instance);
      const { signal, progress } = watch(operation, members[0]!.target.snapshot!, async () => {
        let sum = 0n;
        for (const { pool, name } of members) sum += await this.#volumes.usedBytes(pool, "custom", name);
        return sum;
      });
      const part = partsOf(progress);
      for (const member of members) {
        signal.throwIfAborted();
        await member.driver.facets.snapshot!.create(member.target, { signal, ...part() });
        made.push(member);
      }
    } finally {
      for (const instance of frozen) await this.#standstill.thaw(instance);
    }
  }

  #members(post: SnapshotGroupPost): Member[] {
    const seen = new Set<string>();
    return post.volumes.map(({ pool, name }) => {
      const key = `${pool}/${name}`;
      if (seen.has(key)) throw new LidoError("bad_request", `Volume "${key}" is named twice`);
      seen.add(key);
      const volume = this.#volumes.volume(this.#volumes.row(pool, "custom", name));
      const driver = this.#options.pools.driver(pool);
      if (!driver.facets.snapshot) {
        throw new LidoError("bad_request", `Cannot make snapshots on pool "${pool}": ${driver.absent.snapshot}`);
      }
      return { pool, name, driver, target: { ...volume, ...onDisk("custom", name), snapshot: post.name } };
    });
  }
}

/** @returns The driver's `createGroup`, when all members are on one pool and its driver has it. */
function togetherOf(members: readonly Member[]): ((snapshots: readonly Volume[]) => Promise<void>) | undefined {
  const [first] = members;
  const snapshots = first!.driver.facets.snapshot!;
  if (!snapshots.createGroup || members.some(({ driver }) => driver !== first!.driver)) return undefined;
  return (all) => snapshots.createGroup!(all);
}

function momentOf(isTogether: boolean, frozen: readonly string[]): string {
  if (isTogether) return "the driver takes all snapshots in one step";
  if (frozen.length === 0) return "no running container has any of the volumes";
  return `the containers that have the volumes stand still: ${frozen.join(", ")}`;
}
