/** One change at a time for each name; others wait their turn. */
export class Locks {
  readonly #tails = new Map<string, Promise<unknown>>();

  isHeld(name: string): boolean {
    return this.#tails.has(name);
  }

  /** Runs `work` when every earlier holder of any of `names` is done.
   * @param signal Ends the waiting, not the work. @throws Its reason; the work is not done then. */
  async hold<T>(names: readonly string[], work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (!signal) return await this.#inTurn(names, work);
    signal.throwIfAborted();
    let hasBegun = false;
    const given = new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => hasBegun || reject(signal.reason), { once: true });
    });
    const held = this.#inTurn(names, () => {
      signal.throwIfAborted();
      hasBegun = true;
      return work();
    });
    return await Promise.race([held, given]);
  }

  /** Names are taken in one order, so that two cannot wait for each other. */
  async #inTurn<T>(names: readonly string[], work: () => Promise<T>): Promise<T> {
    const [name, ...rest] = [...new Set(names)].sort();
    if (name === undefined) return await work();
    const before = this.#tails.get(name) ?? Promise.resolve();
    const mine = before.then(() => this.#inTurn(rest, work));
    const settled = mine.catch(() => {});
    this.#tails.set(name, settled);
    try {
      return await mine;
    } finally {
      if (this.#tails.get(name) === settled) this.#tails.delete(name);
    }
  }
}
