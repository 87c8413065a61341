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
  readonly released: Promise<void>;
}

/** One change of an instance at a time. What the user asks for is refused while another change runs, with LXD's text; what the daemon does by itself
 * (tidying up after a container that ended, a changed profile) waits for its turn. */
export class OperationLocks {
  readonly #held = new Map<string, Held>();

  /** @throws {LidoError} bad_request while another operation has it. */
  acquire(name: string, action: Action): Disposable {
    const held = this.#held.get(name);
    if (held) {
      throw new LidoError(
        "bad_request",
        `Failed to create instance ${action} operation: Instance is busy running a "${held.action}" operation`,
      );
    }
    return this.#take(name, action);
  }

  async wait(name: string, action: Action): Promise<Disposable> {
    for (let held = this.#held.get(name); held; held = this.#held.get(name)) await held.released;
    return this.#take(name, action);
  }

  /** @returns What runs on the instance now. */
  action(name: string): Action | undefined {
    return this.#held.get(name)?.action;
  }

  /** Waits until nothing runs any more; used at shutdown. */
  async idle(): Promise<void> {
    while (this.#held.size > 0) await Promise.all([...this.#held.values()].map((held) => held.released));
  }

  #take(name: string, action: Action): Disposable {
    const { promise, resolve } = Promise.withResolvers<void>();
    const held = { action, released: promise };
    this.#held.set(name, held);
    return {
      [Symbol.dispose]: () => {
        if (this.#held.get(name) === held) this.#held.delete(name);
        resolve();
      },
    };
  }
}
