import type { Sink } from "../exec/session.ts";

/** Output buffered for a reader, in bytes; the command blocks when one of its streams has more. */
const waitingBytesMax = 1 << 20;

/** A sink whose data is read from a stream. It buffers up to a MiB. When it is full and its stream has no reader while its sibling has one,
 * further data is dropped: otherwise the command would wait for this stream's reader, and the program for the other stream's data. */
export class Outlet {
  readonly stream: ReadableStream<Uint8Array>;
  readonly sink: Sink;
  /** The other stream of the same command. */
  sibling: Outlet | undefined;
  readonly #name: string;
  readonly #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #lostBytes = 0;
  #end: { readonly error?: unknown } | undefined;
  #isCancelled = false;
  /** Wake the sink, which waits for room, and the stream, which waits for data. */
  #madeRoom = () => {};
  #arrived = () => {};

  /** @param name For error texts, such as "stdout". */
  constructor(name: string) {
    this.#name = name;
    this.stream = new ReadableStream({
      pull: (controller) => this.#pull(controller),
      cancel: () => {
        this.#isCancelled = true;
        this.#waiting.length = 0;
        this.#madeRoom();
        this.#arrived();
      },
    }, { highWaterMark: 0 }); // the buffer is counted here
    this.sink = (chunk) => this.#take(chunk);
  }

  /** Ends the data, or fails with `error`. Only the first call counts. */
  end(outcome: { readonly error?: unknown } = {}): void {
    this.#end ??= outcome;
    this.#arrived();
  }

  #take(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#isCancelled) return;
    if (this.#lostBytes > 0 || (this.#isFull && this.#isForsaken)) {
      // No data after a gap: the reader gets the beginning, and then the error.
      this.#lostBytes += chunk.length;
      return;
    }
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.length;
    this.#arrived();
    if (!this.#isFull || this.#isForsaken) return;
    return new Promise((resolve) => this.#madeRoom = resolve);
  }

  get #isFull(): boolean {
    return this.#waitingBytes > waitingBytesMax;
  }

  get #isForsaken(): boolean {
    return !this.stream.locked && this.sibling?.stream.locked === true;
  }

  async #pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    if (this.sibling) this.sibling.#reconsider();
    while (this.#waiting.length === 0 && !this.#end && !this.#isCancelled) {
      await new Promise<void>((resolve) => this.#arrived = resolve);
    }
    if (this.#isCancelled) return;
    const chunk = this.#waiting.shift();
    if (chunk) {
      this.#waitingBytes -= chunk.length;
      if (!this.#isFull) this.#madeRoom();
      controller.enqueue(chunk);
    } else if (this.#lostBytes > 0) {
      const why = "nobody read it while the other stream was read";
      controller.error(new Error(`Lost ${this.#lostBytes} bytes of ${this.#name}: ${why}`));
    } else if ("error" in this.#end!) {
      controller.error(this.#end.error);
    } else {
      controller.close();
    }
  }

  /** Called when the sibling is read: if this stream has no reader, its sink must stop waiting. */
  #reconsider(): void {
    if (this.#isForsaken) this.#madeRoom();
  }
}
