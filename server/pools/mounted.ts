import { messageOf } from "../../api/errors.ts";
import type { Config } from "../../api/types.ts";
import type { Driver, Volume } from "../../drivers/storage/driver.ts";
import { Locks } from "../store/locks.ts";

/** Which volumes are mounted on the host, and for which uses. On lvm and zfs each volume is a filesystem of its own, active and mounted only while
 * it is used; on dir and btrfs the tree is always there and all this costs a few map look-ups.
 *
 * A *use* lasts as long as a piece of work. A *holder* is a running container. Its namespace has clones of the mount: the host's mount could be
 * removed, but the filesystem below it would stay in use. So the host's mount stays while there is a holder, whatever uses begin and end.
 *
 * Nothing is stored. Nothing is unmounted before `start`, since the running containers are not all known until then. */

/** A volume that is mounted until this is disposed of. */
export interface Use extends AsyncDisposable {
  readonly path: string;
}

export interface MountedOptions {
  readonly driver: (pool: string) => Driver;
  /** @see PoolSources.answered */
  readonly answered?: (pool: string) => Promise<void> | undefined;
  /** The stored settings of a volume, for its mount options; undefined for one that is being made. */
  readonly config: (pool: string, volume: Volume) => Config | undefined;
  readonly log: { warn(context: object, message: string): void };
}

interface State {
  readonly pool: string;
  readonly volume: Volume;
  users: number;
  readonly holders: Set<string>;
  /** Also false when that is not known. */
  isMounted: boolean;
  /** Called when the last use has ended. */
  readonly idle: (() => void)[];
}

export class MountedVolumes {
  readonly #options: MountedOptions;
  readonly #states = new Map<string, State>();
  readonly #locks = new Locks();
  #isStarted = false;

  constructor(options: MountedOptions) {
    this.#options = options;
  }

  /** Mounts a volume or snapshot for a piece of work: `await using use = await mounts.use(pool, volume)`. */
  async use(pool: string, volume: Volume): Promise<Use> {
    const key = keyOf(pool, volume);
    await this.#answered(pool);
    const path = this.#options.driver(pool).path(volume); // if this throws, nothing has been counted
    const current = this.#states.get(key);
    // Already mounted: add a reference without taking the lock. `alone()` holds it while it waits and would deadlock a nested use.
    if (current && current.users > 0) current.users++;
    else await this.#locks.hold([key], async () => void (await this.#mount(key, pool, volume)).users++);
    let isOver = false;
    return {
      path,
      [Symbol.asyncDispose]: async () => {
        if (isOver) return;
        isOver = true;
        const state = this.#states.get(key)!;
        if (--state.users > 0) return;
        for (const tell of state.idle.splice(0)) tell();
        await this.#letGo(key);
      },
    };
  }

  /** Mounts a volume for as long as `holder` runs. @param holder Names the instance and its device. @returns The volume's path. */
  async hold(pool: string, volume: Volume, holder: string): Promise<string> {
    const key = keyOf(pool, volume);
    await this.#answered(pool);
    const path = this.#options.driver(pool).path(volume);
    await this.#locks.hold([key], async () => void (await this.#mount(key, pool, volume)).holders.add(holder));
    return path;
  }

  /** Adds a holder that an earlier daemon started. The pool may be unavailable. */
  adopt(pool: string, volume: Volume, holder: string): void {
    this.#state(keyOf(pool, volume), pool, volume).holders.add(holder);
  }

  /** Removes a holder; an unknown one is no error. */
  async release(pool: string, volume: Volume, holder: string): Promise<void> {
    const key = keyOf(pool, volume);
    if (!this.#states.get(key)?.holders.delete(holder)) return;
    await this.#letGo(key);
  }

  /** @returns Whether a volume is mounted, or has a holder or a use. */
  isMounted(pool: string, volume: Volume): boolean {
    const state = this.#states.get(keyOf(pool, volume));
    return state !== undefined && (state.isMounted || state.users > 0 || state.holders.size > 0);
  }

  /** @returns Whether any volume of the pool has a holder or a use. */
  isInUse(pool: string): boolean {
    return [...this.#states.values()].some((one) => one.pool === pool && (one.users > 0 || one.holders.size > 0));
  }

  /** Runs a change of the volume as a whole (delete, rename, restore, a new size): waits until all uses have ended, and blocks new ones
   * meanwhile. The volume is unmounted first, unless a running container holds it. */
  async alone<T>(pool: string, volume: Volume, work: () => Promise<T>): Promise<T> {
    const key = keyOf(pool, volume);
    return await this.#locks.hold([key], async () => {
      await this.#answered(pool);
      const state = this.#states.get(key);
      if (state && state.users > 0) await new Promise<void>((resolve) => state.idle.push(resolve));
      await this.#unmountIdle(key);
      return await work();
    });
  }

  /** Called when every running container is known: unmounts the volumes that have neither holder nor use.
   * @param pools The open pools. @param mounted Targets of all mounts of the host. */
  async start(pools: readonly Driver[], mounted: readonly string[]): Promise<void> {
    this.#isStarted = true;
    const targets = new Set(mounted);
    for (const driver of pools) {
      const { name, root } = driver.pool;
      if (![...targets].some((target) => target.startsWith(`${root}/`))) continue;
      try {
        for (const volume of await driver.list()) {
          if (!targets.has(driver.path(volume))) continue;
          const key = keyOf(name, volume);
          this.#state(key, name, volume).isMounted = true;
          await this.#letGo(key);
        }
      } catch (error) {
        this.#options.log.warn({ pool: name, error: messageOf(error) }, "could not look for mounts that are nobody's");
      }
    }
  }

  /** @throws {LidoError} unavailable when the pool's filesystem does not answer. */
  async #answered(pool: string): Promise<void> {
    const answered = this.#options.answered?.(pool);
    if (!answered) return;
    await answered;
    this.#options.driver(pool);
  }

  /** The caller holds the key's lock. */
  async #mount(key: string, pool: string, volume: Volume): Promise<State> {
    const state = this.#state(key, pool, volume);
    if (!state.isMounted) {
      try {
        const config = volume.config ?? this.#options.config(pool, volume);
        await this.#options.driver(pool).mount({ ...volume, ...(config ? { config } : {}) });
      } catch (error) {
        this.#forget(key);
        throw error;
      }
      state.isMounted = true;
    }
    return state;
  }

  /** Unmounts an idle volume. A failure is only logged, since the work that used the volume succeeded; the next use tries again at its end. */
  async #letGo(key: string): Promise<void> {
    await this.#locks.hold(
      [key],
      () =>
        this.#unmountIdle(key).catch((error) =>
          this.#options.log.warn({ volume: key, error: messageOf(error) }, "could not unmount a volume")
        ),
    );
  }

  /** The caller holds the key's lock. */
  async #unmountIdle(key: string): Promise<void> {
    const state = this.#states.get(key);
    if (!this.#isStarted || !state || state.users > 0 || state.holders.size > 0) return;
    if (state.isMounted) await this.#options.driver(state.pool).unmount(state.volume);
    state.isMounted = false;
    this.#forget(key);
  }

  #state(key: string, pool: string, volume: Volume): State {
    let state = this.#states.get(key);
    if (!state) {
      const { type, name, snapshot } = volume;
      const plain: Volume = { type, name, ...(snapshot === undefined ? {} : { snapshot }) };
      state = { pool, volume: plain, users: 0, holders: new Set(), isMounted: false, idle: [] };
      this.#states.set(key, state);
    }
    return state;
  }

  #forget(key: string): void {
    const state = this.#states.get(key);
    if (state && state.users === 0 && state.holders.size === 0 && !state.isMounted) this.#states.delete(key);
  }
}

function keyOf(pool: string, { type, name, snapshot }: Volume): string {
  return `${pool}/${type}/${name}${snapshot === undefined ? "" : `/${snapshot}`}`;
}
