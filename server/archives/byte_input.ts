/** Reads bytes from a stream of chunks, copying only where a read spans chunks. */
export class ByteInput {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array();

  constructor(stream: AsyncIterable<Uint8Array>) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  /** @returns Exactly `count` bytes, or undefined when the stream ends before. Valid until the next call. */
  async take(count: number): Promise<Uint8Array | undefined> {
    if (this.#chunk.length >= count) {
      const taken = this.#chunk.subarray(0, count);
      this.#chunk = this.#chunk.subarray(count);
      return taken;
    }
    const result = new Uint8Array(count);
    for (let filled = 0; filled < count;) {
      if (this.#chunk.length === 0 && !await this.#more()) return undefined;
      const part = this.#chunk.subarray(0, count - filled);
      result.set(part, filled);
      filled += part.length;
      this.#chunk = this.#chunk.subarray(part.length);
    }
    return result;
  }

  /** @throws {Error} When the stream ends before. */
  async need(count: number): Promise<Uint8Array> {
    const bytes = await this.take(count);
    if (!bytes) throw truncated();
    return bytes;
  }

  /** @returns The bytes that have arrived, at least one and at most `max`. @throws {Error} At the end of the stream. */
  async some(max: number): Promise<Uint8Array> {
    if (this.#chunk.length === 0 && !await this.#more()) throw truncated();
    const part = this.#chunk.subarray(0, max);
    this.#chunk = this.#chunk.subarray(part.length);
    return part;
  }

  /** Skips up to `count` bytes, fewer at the end of the stream. @returns How many it skipped. */
  async drop(count: number): Promise<number> {
    let dropped = 0;
    while (dropped < count) {
      if (this.#chunk.length === 0 && !await this.#more()) break;
      const part = Math.min(this.#chunk.length, count - dropped);
      this.#chunk = this.#chunk.subarray(part);
      dropped += part;
    }
    return dropped;
  }

  /** @throws {Error} When the stream ends before. */
  async skip(count: number): Promise<void> {
    if (await this.drop(count) !== count) throw truncated();
  }

  async #more(): Promise<boolean> {
    for (;;) {
      const { done, value } = await this.#chunks.next();
      if (done) return false;
      if (value.length === 0) continue;
      this.#chunk = value;
      return true;
    }
  }
}

function truncated(): Error {
  return new Error("the archive is truncated");
}
