import { LidoError } from "../../api/errors.ts";

export type Action =
  | "create"
  | "start"
  | "stop"
  | "restart"
  | "update"
  | "delete"
  | "rename"
  | "snapshot"
  | "restore"
  | "freeze"
  | "unfreeze";

interface Held {
  readonly action: Action;
  /** Whether the daemon holds it for its own work, not for a user's operation. */
  readonly isOwn: boolean;
  readonly released: Promise<void>;
  readonly takeOver: AbortController;
  readonly awaited: AbortController;
}

/** The order in which waiters are served; within a rank, in the order in which they came. */
enum Rank {
  /** The daemon cleans up after a container that has ended: every later operation relies on that. */
  Tidying,
  Forced,
  Other,
}

interface Waiter {
  readonly action: Action;
  readonly isOwn: boolean;
  readonly rank: Rank;
  hasTakenOver: boolean;
  readonly promise: Promise<OperationLock>;
  readonly resolve: (lock: OperationLock) => void;
  readonly reject: (error: LidoError) => void;
}

/** The right to change an instance, until it is disposed of. */
export interface OperationLock extends Disposable {
  /** Aborted when a forced stop or restart wants the instance: a holder that waits for the container's end must kill it now, and release the lock.
   * The reason is that operation's `Action`. Never aborted for the daemon's own work. */
  readonly takenOver: AbortSignal;
  /** Whether another operation had to give way to this one. */
  readonly hasTakenOver: boolean;
  /** Aborted when another operation waits for this lock: a holder that only watches the container stops watching, and releases the lock. */
  readonly awaited: AbortSignal;
}

/** Operations that wait for what the container does, perhaps for minutes, and that a forced stop ends. */
const givesWay: ReadonlySet<Action> = new Set(["stop", "restart"]);
/** How long a user's operation waits for the daemon's own work, or for an operation that gives way: a start that hangs on a disk must not make all
 * others hang. */
const patienceMs = 30_000;

/** One change of an instance at a time. A user's operation is refused, with LXD's text, while another user's runs. The daemon's own work (cleaning up
 * after a container that ended, a changed profile) waits for its turn, and users' operations wait for it: users cannot know of it. Waiters are served
 * in order (`Rank`), so that the user can stop a container that reboots in a loop.
 *
 * A forced stop or restart does not wait for a clean one: it takes over. The clean one is told by `takenOver`, kills the container, succeeds and
 * releases the lock; then the forced one gets the lock, and finds the container stopped. */
export class OperationLocks {
  readonly #held = new Map<string, Held>();
  readonly #waiters = new Map<string, Waiter[]>();
  readonly #patienceMs: number;

  /** @param options.patienceMs How long to wait before "busy"; tests shorten it. */
  constructor(options: { patienceMs?: number } = {}) {
    this.#patienceMs = options.patienceMs ?? patienceMs;
  }

  /** For a user's operation. @param options.takeOver Whether an operation that only waits for the container's end is to give way.
   * @throws {LidoError} bad_request while another user's operation holds the lock, or if the daemon holds it for longer than `patienceMs`. */
  async acquire(name: string, action: Action, options: { takeOver?: boolean } = {}): Promise<OperationLock> {
    const waiter = waiterFor({ action, isOwn: false, rank: options.takeOver ? Rank.Forced : Rank.Other });
    const timer = setTimeout(() => this.#refuse(name, waiter), this.#patienceMs);
    try {
      return await this.#enter(name, waiter);
    } finally {
      clearTimeout(timer);
    }
  }

  /** For the daemon's own work. @param options.tidies Whether it cleans up after a container that has ended. */
  wait(name: string, action: Action, options: { tidies?: boolean } = {}): Promise<OperationLock> {
    return this.#enter(name, waiterFor({ action, isOwn: true, rank: options.tidies ? Rank.Tidying : Rank.Other }));
  }

  /** @returns The action that holds the lock now. */
  action(name: string): Action | undefined {
    return this.#held.get(name)?.action;
  }

  /** Waits until nothing runs any more; used at shutdown. */
  async idle(): Promise<void> {
    while (this.#held.size > 0) await Promise.all([...this.#held.values()].map((held) => held.released));
  }

  #enter(name: string, waiter: Waiter): Promise<OperationLock> {
    const held = this.#held.get(name);
    if (!held) {
      waiter.resolve(this.#take(name, waiter));
      return waiter.promise;
    }
    const waiters = this.#waiters.get(name) ?? [];
    this.#waiters.set(name, waiters);
    const after = waiters.findIndex((other) => other.rank > waiter.rank);
    waiters.splice(after < 0 ? waiters.length : after, 0, waiter);
    if (!mayWait(held, waiter)) this.#refuse(name, waiter);
    return waiter.promise;
  }

  #refuse(name: string, waiter: Waiter): void {
    const waiters = this.#waiters.get(name) ?? [];
    const index = waiters.indexOf(waiter);
    if (index >= 0) waiters.splice(index, 1);
    waiter.reject(
      new LidoError(
        "bad_request",
        `Failed to create instance ${waiter.action} operation: Instance is busy running a "${
          this.action(name)
        }" operation: ${JSON.stringify(name)}`,
      ),
    );
  }

  #take(name: string, { action, isOwn, hasTakenOver }: Waiter): OperationLock {
    const { promise, resolve } = Promise.withResolvers<void>();
    const held: Held = {
      action,
      isOwn,
      released: promise,
      takeOver: new AbortController(),
      awaited: new AbortController(),
    };
    this.#held.set(name, held);
    return {
      takenOver: held.takeOver.signal,
      hasTakenOver,
      awaited: held.awaited.signal,
      [Symbol.dispose]: () => {
        if (this.#held.get(name) === held) this.#passOn(name);
        resolve();
      },
    };
  }

  /** Gives the lock to the next waiter synchronously, so that no later caller gets it first. */
  #passOn(name: string): void {
    this.#held.delete(name);
    const waiters = this.#waiters.get(name);
    const next = waiters?.shift();
    if (!waiters || !next) {
      this.#waiters.delete(name);
      return;
    }
    next.resolve(this.#take(name, next));
    const held = this.#held.get(name)!;
    for (const waiter of [...waiters]) if (!mayWait(held, waiter)) this.#refuse(name, waiter);
  }
}

function waiterFor(of: Pick<Waiter, "action" | "isOwn" | "rank">): Waiter {
  return { ...of, hasTakenOver: false, ...Promise.withResolvers<OperationLock>() };
}

/** Tells the lock's holder that it is wanted. @returns Whether the waiter may wait; else it is refused. */
function mayWait(held: Held, waiter: Waiter): boolean {
  held.awaited.abort();
  if (held.isOwn || waiter.isOwn) return true;
  if (waiter.rank !== Rank.Forced || !givesWay.has(held.action)) return false;
  waiter.hasTakenOver = true;
  held.takeOver.abort(waiter.action);
  return true;
}
