/** As much as LXC keeps of a console (`lxc.console.buffer.size = auto`). */
export const ringBytesMax = 128 * 1024;
const firstBytes = 4096;

/** The last bytes that a console printed. */
export class ConsoleRing {
  #bytes = new Uint8Array(firstBytes);
  /** Bytes pushed since the ring was empty; the next byte goes to this position, modulo the length. */
  #pushed = 0;

  /** Copies the chunk, or as much of its end as fits. */
  push(chunk: Uint8Array): void {
    this.#grow(Math.min(this.#pushed + chunk.length, ringBytesMax));
    const length = this.#bytes.length;
    const kept = chunk.subarray(Math.max(0, chunk.length - length));
    const at = (this.#pushed + chunk.length - kept.length) % length;
    const head = kept.subarray(0, length - at);
    this.#bytes.set(head, at);
    this.#bytes.set(kept.subarray(head.length), 0);
    this.#pushed += chunk.length;
  }

  /** @returns A copy, the oldest byte first. */
  content(): Uint8Array {
    if (this.#pushed <= this.#bytes.length) return this.#bytes.slice(0, this.#pushed);
    const at = this.#pushed % this.#bytes.length;
    const content = new Uint8Array(this.#bytes.length);
    content.set(this.#bytes.subarray(at));
    content.set(this.#bytes.subarray(0, at), this.#bytes.length - at);
    return content;
  }

  clear(): void {
    this.#bytes = new Uint8Array(firstBytes);
    this.#pushed = 0;
  }

  /** Copies from the start: a ring grows before it would overwrite anything, so it has not wrapped yet. */
  #grow(wanted: number): void {
    let length = this.#bytes.length;
    while (length < wanted) length *= 2;
    if (length === this.#bytes.length) return;
    const grown = new Uint8Array(length);
    grown.set(this.#bytes.subarray(0, this.#pushed));
    this.#bytes = grown;
  }
}
