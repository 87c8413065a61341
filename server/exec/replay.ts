/** How much of the output a client gets when it attaches again. */
const keptBytesMax = 1 << 20;
/** Limits the list of runs: streams that alternate byte by byte keep less output. */
const runsMax = 16_384;

interface Run<Stream> {
  readonly stream: Stream;
  bytes: number;
}

/** The last bytes of all streams together, in the order in which they were read: a ring of bytes, and a list of runs of one stream each. */
export class Replay<Stream> {
  #ring = new Uint8Array(4096);
  /** Number of bytes pushed so far; the next byte goes to this place, modulo the ring's length. */
  #end = 0;
  #bytes = 0;
  #runs: Run<Stream>[] = [];
  #firstRun = 0;

  /** Copies the chunk. */
  push(stream: Stream, chunk: Uint8Array): void {
    const kept = chunk.length > keptBytesMax ? chunk.subarray(chunk.length - keptBytesMax) : chunk;
    this.#makeRoom(kept.length);
    const at = this.#end % this.#ring.length;
    const head = kept.subarray(0, this.#ring.length - at);
    this.#ring.set(head, at);
    this.#ring.set(kept.subarray(head.length), 0);
    this.#end += kept.length;
    this.#bytes += kept.length;
    const last = this.#runs.at(-1);
    if (last?.stream === stream && this.#runs.length > this.#firstRun) last.bytes += kept.length;
    else this.#runs.push({ stream, bytes: kept.length });
    if (this.#runs.length - this.#firstRun > runsMax) this.#forget(this.#runs[this.#firstRun]!.bytes);
  }

  /** Copies of all kept output. */
  all(): { readonly stream: Stream; readonly chunk: Uint8Array }[] {
    let from = this.#end - this.#bytes;
    return this.#runs.slice(this.#firstRun).map(({ stream, bytes }) => {
      const chunk = new Uint8Array(bytes);
      const at = from % this.#ring.length;
      const head = this.#ring.subarray(at, at + bytes);
      chunk.set(head);
      chunk.set(this.#ring.subarray(0, bytes - head.length), head.length);
      from += bytes;
      return { stream, chunk };
    });
  }

  #makeRoom(bytes: number): void {
    const wanted = this.#bytes + bytes;
    if (wanted > keptBytesMax) this.#forget(wanted - keptBytesMax);
    let length = this.#ring.length;
    while (length < Math.min(wanted, keptBytesMax)) length *= 2;
    if (length === this.#ring.length) return;
    const grown = new Uint8Array(length);
    const old = this.all();
    let at = 0;
    for (const { chunk } of old) {
      grown.set(chunk, at);
      at += chunk.length;
    }
    this.#ring = grown;
    this.#end = at;
  }

  #forget(bytes: number): void {
    this.#bytes -= bytes;
    while (bytes > 0) {
      const oldest = this.#runs[this.#firstRun]!;
      const taken = Math.min(bytes, oldest.bytes);
      oldest.bytes -= taken;
      bytes -= taken;
      if (oldest.bytes === 0) this.#firstRun++;
    }
    if (this.#firstRun <= this.#runs.length / 2) return;
    this.#runs = this.#runs.slice(this.#firstRun);
    this.#firstRun = 0;
  }
}
