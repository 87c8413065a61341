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
  /** Whether the daemon has it for itself. */
  readonly isOwn: boolean;
  readonly released: Promise<void>;
  readonly takeOver: AbortController;
}

/** The right to change an instance, until it is disposed of. */
export interface OperationLock extends Disposable {
  /** Aborted when a forced stop or restart wants the instance: a holder that waits for the container's end must make it end now, and release the lock.
   * The reason is that operation's `Action`. */
  readonly takenOver: AbortSignal;
  /** Whether another operation had to give way to this one. */
  readonly hasTakenOver: boolean;
}

/** Operations that wait for what the container does, perhaps for minutes, and that a forced stop ends. */
const givesWay: ReadonlySet<Action> = new Set(["stop", "restart"]);
/** How long a user waits for what the daemon does by itself, or for an operation that gives way: a start that hangs on a disk must not make everybody
 * else hang. */
const patienceMs = 30_000;

/** One change of an instance at a time. What a user asks for is refused while another user's change runs, with LXD's text. What the daemon does by
 * itself (tidying up after a container that ended, a changed profile) waits for its turn, and users wait for it: they cannot know of it.
 *
 * A forced stop or restart does not wait for a clean one: it takes over. The waiting operation is told so by `takenOver`, kills the container, ends well and
 * releases the lock; only then the forced one has it, and finds the container stopped. */
export class OperationLocks {
  readonly #held = new Map<string, Held>();
  readonly #patienceMs: number;

  /** @param options.patienceMs How long to wait before "busy"; tests shorten it. */
  constructor(options: { patienceMs?: number } = {}) {
    this.#patienceMs = options.patienceMs ?? patienceMs;
  }

  /** For what a user asks for. @param options.takeOver Whether an operation that only waits for the container's end is to give way.
   * @throws {LidoError} bad_request while another user's operation has it, or the daemon itself for longer than it may take. */
  async acquire(name: string, action: Action, options: { takeOver?: boolean } = {}): Promise<OperationLock> {
    const deadline = Date.now() + this.#patienceMs;
    let hasTakenOver = false;
    for (let held = this.#held.get(name); held; held = this.#held.get(name)) {
      const isTakenOver = options.takeOver === true && !held.isOwn && givesWay.has(held.action);
      if (isTakenOver) {
        hasTakenOver = true;
        held.takeOver.abort(action);
      }
      if ((!held.isOwn && !isTakenOver) || !await endsBefore(held.released, deadline)) {
        throw new LidoError(
          "bad_request",
          `Failed to create instance ${action} operation: Instance is busy running a "${held.action}" operation`,
        );
      }
    }
    return this.#take(name, { action, isOwn: false }, hasTakenOver);
  }

  /** For what the daemon does by itself. */
  async wait(name: string, action: Action): Promise<OperationLock> {
    for (let held = this.#held.get(name); held; held = this.#held.get(name)) await held.released;
    return this.#take(name, { action, isOwn: true }, false);
  }

  /** @returns What runs on the instance now. */
  action(name: string): Action | undefined {
    return this.#held.get(name)?.action;
  }

  /** Waits until nothing runs any more; used at shutdown. */
  async idle(): Promise<void> {
    while (this.#held.size > 0) await Promise.all([...this.#held.values()].map((held) => held.released));
  }

  #take(name: string, by: Pick<Held, "action" | "isOwn">, hasTakenOver: boolean): OperationLock {
    const { promise, resolve } = Promise.withResolvers<void>();
    const held: Held = { ...by, released: promise, takeOver: new AbortController() };
    this.#held.set(name, held);
    return {
      takenOver: held.takeOver.signal,
      hasTakenOver,
      [Symbol.dispose]: () => {
        if (this.#held.get(name) === held) this.#held.delete(name);
        resolve();
      },
    };
  }
}

async function endsBefore(released: Promise<void>, deadline: number): Promise<boolean> {
  const late = Promise.withResolvers<false>();
  const timer = setTimeout(() => late.resolve(false), Math.max(0, deadline - Date.now()));
  try {
    return await Promise.race([released.then(() => true), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
