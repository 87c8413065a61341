/** One change at a time for each name; others wait their turn. */
export class Locks {
  readonly #tails = new Map<string, Promise<unknown>>();

  isHeld(name: string): boolean {
    return this.#tails.has(name);
  }

  /** Runs `work` when every earlier holder of any of `names` is done. Names are taken in one order, so that two cannot wait for each other. */
  async hold<T>(names: readonly string[], work: () => Promise<T>): Promise<T> {
    const [name, ...rest] = [...new Set(names)].sort();
    if (name === undefined) return await work();
    const before = this.#tails.get(name) ?? Promise.resolve();
    const mine = before.then(() => this.hold(rest, work));
    const settled = mine.catch(() => {});
    this.#tails.set(name, settled);
    try {
      return await mine;
    } finally {
      if (this.#tails.get(name) === settled) this.#tails.delete(name);
    }
  }
}
