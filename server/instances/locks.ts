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
}

/** One change of an instance at a time. What a user asks for is refused while another user's change runs, with LXD's text. What the daemon does by
 * itself (tidying up after a container that ended, a changed profile) waits for its turn, and users wait for it: they cannot know of it. */
export class OperationLocks {
  readonly #held = new Map<string, Held>();

  /** For what a user asks for. @throws {LidoError} bad_request while another user's operation has it. */
  async acquire(name: string, action: Action): Promise<Disposable> {
    for (let held = this.#held.get(name); held; held = this.#held.get(name)) {
      if (!held.isOwn) {
        throw new LidoError(
          "bad_request",
          `Failed to create instance ${action} operation: Instance is busy running a "${held.action}" operation`,
        );
      }
      await held.released;
    }
    return this.#take(name, { action, isOwn: false });
  }

  /** For what the daemon does by itself. */
  async wait(name: string, action: Action): Promise<Disposable> {
    for (let held = this.#held.get(name); held; held = this.#held.get(name)) await held.released;
    return this.#take(name, { action, isOwn: true });
  }

  /** @returns What runs on the instance now. */
  action(name: string): Action | undefined {
    return this.#held.get(name)?.action;
  }

  /** Waits until nothing runs any more; used at shutdown. */
  async idle(): Promise<void> {
    while (this.#held.size > 0) await Promise.all([...this.#held.values()].map((held) => held.released));
  }

  #take(name: string, by: Pick<Held, "action" | "isOwn">): Disposable {
    const { promise, resolve } = Promise.withResolvers<void>();
    const held = { ...by, released: promise };
    this.#held.set(name, held);
    return {
      [Symbol.dispose]: () => {
        if (this.#held.get(name) === held) this.#held.delete(name);
        resolve();
      },
    };
  }
}
