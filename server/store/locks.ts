/** What a lock is held for: a change of what it names, alone, or only a look at it that others may have beside. */
export type Hold = "change" | "look";

interface Tail {
  readonly kind: Hold;
  /** Those before it are done. */
  readonly before: Promise<unknown>;
  /** It is done, and all that look beside it. */
  readonly done: Promise<unknown>;
}

/** One change at a time for each name; others wait their turn. Looks that come one after the other are had together. */
export class Locks {
  readonly #tails = new Map<string, Tail>();

  isHeld(name: string): boolean {
    return this.#tails.has(name);
  }

  /** Runs `work` when every earlier holder of any of `names` is done.
   * @param signal Ends the waiting, not the work. @throws Its reason; the work is not done then. */
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

  /** Names are taken in one order, so that two cannot wait for each other. */
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
      // Whoever waited for it finds it free, where nobody looks beside.
      if (!beside) forget();
    }
  }
}
