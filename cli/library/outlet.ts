import type { Sink } from "../exec/session.ts";

/** Output that waits for a reader, in bytes; the command stands still when one of its streams has more. */
const waitingBytesMax = 1 << 20;

/** A sink whose data comes out of a stream. It takes up to a MiB more than was read. A full one whose stream has no reader, while its sibling's has
 * one, loses what comes: the command would wait for the one, and its program for the other. */
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
  /** Of the sink, which waits for room; of the stream, which waits for data. */
  #madeRoom = () => {};
  #arrived = () => {};

  /** @param name For the error, "stdout". */
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
    }, { highWaterMark: 0 }); // what waits is counted here
    this.sink = (chunk) => this.#take(chunk);
  }

  /** There is nothing more, or no more after `error`. Only the first end counts. */
  end(outcome: { readonly error?: unknown } = {}): void {
    this.#end ??= outcome;
    this.#arrived();
  }

  #take(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#isCancelled) return;
    if (this.#lostBytes > 0 || (this.#isFull && this.#isForsaken)) {
      // Nothing after a gap: what is read is the beginning, and then the error.
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

  /** The sibling is read: perhaps nobody will come for what waits here. */
  #reconsider(): void {
    if (this.#isForsaken) this.#madeRoom();
  }
}
