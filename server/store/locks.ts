/** What a lock is held for: "change" is exclusive, "look" is shared with other looks. */
export type Hold = "change" | "look";

interface Tail {
  readonly kind: Hold;
  /** Resolves when the holders before it are done. */
  readonly before: Promise<unknown>;
  /** Resolves when the holder is done, and all looks that share the lock with it. */
  readonly done: Promise<unknown>;
}

/** Named locks with a queue each: one change at a time for each name. Looks that follow each other in the queue hold the lock together. */
export class Locks {
  readonly #tails = new Map<string, Tail>();

  isHeld(name: string): boolean {
    return this.#tails.has(name);
  }

  /** Runs `work` when every earlier holder of any of `names` is done.
   * @param signal Ends the waiting, not the work. @throws The signal's reason; `work` is not run then. */
  async hold<T>(
    names: readonly string[],
    work: () => Promise<T>,
    signal?: AbortSignal,
    kind: Hold = "change",
  ): Promise<T> {
    if (!signal) return await this.#inTurn(names, work, kind);
    signal.throwIfAborted();
    let hasBegun = false;
    const given = new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => hasBegun || reject(signal.reason), { once: true });
    });
    const held = this.#inTurn(names, () => {
      signal.throwIfAborted();
      hasBegun = true;
      return work();
    }, kind);
    return await Promise.race([held, given]);
  }

  /** Names are taken in sorted order, so that two callers cannot wait for each other. */
  async #inTurn<T>(names: readonly string[], work: () => Promise<T>, kind: Hold): Promise<T> {
    const [name, ...rest] = [...new Set(names)].sort();
    if (name === undefined) return await work();
    const last = this.#tails.get(name);
    const beside = kind === "look" && last?.kind === "look" ? last : undefined;
    const before = beside?.before ?? last?.done ?? Promise.resolve();
    const mine = before.then(() => this.#inTurn(rest, work, kind));
    const settled = mine.catch(() => {});
    const tail = { kind, before, done: beside ? Promise.all([beside.done, settled]) : settled };
    this.#tails.set(name, tail);
    const forget = () => {
      if (this.#tails.get(name) === tail) this.#tails.delete(name);
    };
    if (beside) void tail.done.then(forget);
    try {
      return await mine;
    } finally {
      // Forget it before the caller goes on, which then finds the lock free; a shared lock is forgotten when all its looks are done.
      if (!beside) forget();
    }
  }
}
