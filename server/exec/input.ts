import type { Poller, Watch } from "../../drivers/host/poll/poll.ts";
import { again, closeFd, endOfInputCharacter, setNonBlocking, writeFd } from "../../drivers/host/process/process.ts";

const queuedBytesMax = 256 * 1024;
const lineEnds = new Set([0x0a, 0x0d]);

/** Writes to a command's stdin, pipe or terminal, without waiting for it. */
export class Input {
  readonly #fd: number;
  readonly #isTerminal: boolean;
  readonly #watch: Watch;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #isArmed = false;
  #isEnding = false;
  #isClosed = false;
  #lastByte: number | undefined;
  #room: (() => void) | undefined;

  /** @param fd Write end of a pipe, or the master of a pty; owned by this object, and watched by no other. */
  constructor(poller: Poller, fd: number, isTerminal: boolean) {
    this.#fd = fd;
    this.#isTerminal = isTerminal;
    setNonBlocking(fd);
    this.#watch = poller.watch(fd);
  }

  /** Whether its descriptor is closed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Input after the end, or after the command closed its stdin, is dropped.
   * @returns A promise if no more input may be passed before it resolves. */
  write(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#isClosed || this.#isEnding || chunk.length === 0) return undefined;
    this.#push(chunk);
    if (!this.#isArmed) this.#flush();
    if (this.#queuedBytes <= queuedBytesMax) return undefined;
    return new Promise((resolve) => this.#room = resolve);
  }

  /** Ends the input: a pipe is closed; a terminal stays open, and its reader gets one end of file if it reads by lines. */
  end(): void {
    if (this.#isEnding || this.#isClosed) return;
    this.#isEnding = true;
    if (this.#isTerminal) this.#queueEndOfInput();
    if (!this.#isArmed) this.#flush();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#watch.close();
    this.#queue = [];
    this.#queuedBytes = 0;
    closeFd(this.#fd);
    this.#room?.();
  }

  #push(chunk: Uint8Array): void {
    this.#queue.push(chunk);
    this.#queuedBytes += chunk.length;
  }

  #queueEndOfInput(): void {
    const character = endOfInputCharacter(this.#fd);
    if (character === undefined) return;
    // In the middle of a line the first character only passes that part of the line to the reader.
    const last = this.#queue.at(-1)?.at(-1) ?? this.#lastByte;
    const count = last === undefined || lineEnds.has(last) ? 1 : 2;
    this.#push(new Uint8Array(count).fill(character));
  }

  #flush(): void {
    this.#isArmed = false;
    while (this.#queue.length > 0) {
      const chunk = this.#queue[0]!;
      let count: number | typeof again;
      try {
        count = writeFd(this.#fd, chunk);
      } catch {
        return this.close(); // EPIPE, or the terminal is closed: there is no reader any more
      }
      if (count === again) break;
      this.#queuedBytes -= count;
      this.#lastByte = chunk[count - 1] ?? this.#lastByte;
      if (count < chunk.length) this.#queue[0] = chunk.subarray(count);
      else this.#queue.shift();
    }
    if (this.#queuedBytes <= queuedBytesMax / 2) this.#room?.();
    if (this.#queue.length > 0) {
      this.#isArmed = true;
      this.#watch.arm("out", () => this.#flush());
    } else if (this.#isEnding && !this.#isTerminal) {
      this.close();
    }
  }
}
