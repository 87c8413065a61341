import type { Poller, Watch } from "../../drivers/host/poll/poll.ts";
import { again, closeFd, pipeCapacity, readFd, setNonBlocking } from "../../drivers/host/process/process.ts";

/** Where output goes. */
export interface Sink {
  /** @returns A promise when no more may be given before it resolves. The chunk is the sink's to keep. */
  write(chunk: Uint8Array): Promise<void> | undefined;
}

/** What one session may move before others have their turn, and the longest message to a client. */
const turnBytes = 256 * 1024;
/** A pty holds at most this; it has no F_GETPIPE_SZ. @see tty_buffer.c, n_tty.c: 64 KiB of flip buffers and 4 KiB of line discipline */
const ptyCapacityBytes = 68 * 1024;

/** Chunks are cut from it one after the other, so that small outputs need no buffer each and nothing is copied. */
let slab = new Uint8Array(0);
const slabBytes = 2 * turnBytes;
/** Less than this at its end is not worth a read. */
const slabRestBytes = 64 * 1024;
/** What a terminal gives at a time, whatever there is. @see n_tty.c */
const terminalReadBytes = 4095;

/** Reads until there is no more just now: a read that does not fill its buffer says so, and asking once more would only cost a call, or
 * race with a writer for a few bytes at a time.
 * @returns What there was, perhaps nothing, and whether it was the end. */
function readChunk(fd: number, bytesMax: number): { chunk: Uint8Array; isEnd: boolean } {
  if (slab.length < slabRestBytes) slab = new Uint8Array(slabBytes);
  const room = Math.min(slab.length, bytesMax);
  let bytes = 0, isEnd = false;
  while (bytes < room) {
    const count = readFd(fd, slab.subarray(bytes, room));
    if (count === again) break;
    bytes += count;
    isEnd = count === 0;
    if (isEnd || (bytes < room && count < terminalReadBytes)) break;
  }
  const chunk = slab.subarray(0, bytes);
  slab = slab.subarray(bytes);
  return { chunk, isEnd };
}

/** Reads a pipe or pty as fast as its sink takes it. */
export class OutputPump {
  readonly #fd: number;
  readonly #watch: Watch;
  readonly #sink: Sink;
  readonly #finished = Promise.withResolvers<void>();
  /** Until it resolves, the sink wants nothing. */
  #room: Promise<void> | undefined;
  #isClosed = false;

  /** @param fd Read end; it belongs to the pump, which closes it. */
  constructor(poller: Poller, fd: number, sink: Sink) {
    this.#fd = fd;
    this.#sink = sink;
    setNonBlocking(fd);
    this.#watch = poller.watch(fd);
    this.#arm();
  }

  /** Settles when there is nothing more to come and the sink took all there was. */
  get finished(): Promise<void> {
    return this.#finished.promise;
  }

  /** The command is dead: what it wrote is in the kernel's buffer at this moment, which has an end. It is read at once, whoever else writes and
   * however slow the sink is: a holder that goes on writing cannot keep up with reads that wait for nothing. */
  drain(): void {
    if (this.#isClosed) return;
    const last: Uint8Array[] = [];
    for (let budget = pipeCapacity(this.#fd) ?? ptyCapacityBytes; budget > 0;) {
      const { chunk, isEnd } = readChunk(this.#fd, budget);
      if (chunk.length > 0) last.push(chunk);
      if (isEnd || chunk.length === 0) break;
      budget -= chunk.length;
    }
    this.#release();
    void this.#deliver(last);
  }

  /** Reads no more; who writes gets SIGPIPE (a pipe) or SIGHUP (a terminal). */
  close(): void {
    if (!this.#isClosed) this.#release();
    this.#finished.resolve();
  }

  #release(): void {
    this.#isClosed = true;
    this.#watch.close();
    closeFd(this.#fd);
  }

  async #deliver(chunks: readonly Uint8Array[]): Promise<void> {
    await this.#room;
    for (const chunk of chunks) await this.#sink.write(chunk);
    this.#finished.resolve();
  }

  #arm(): void {
    this.#watch.arm("in", () => this.#read());
  }

  #read(): void {
    const { chunk, isEnd } = readChunk(this.#fd, turnBytes);
    if (chunk.length > 0) this.#room = this.#sink.write(chunk);
    if (isEnd) {
      this.#release();
      void this.#deliver([]);
    } else if (this.#room) void this.#room.then(() => this.#resume());
    else this.#arm();
  }

  #resume(): void {
    this.#room = undefined;
    if (!this.#isClosed) this.#arm();
  }
}
