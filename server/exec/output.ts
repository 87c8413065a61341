import type { Poller, Watch } from "../../drivers/host/poll.ts";
import { again, closeFd, pipeCapacity, readFd, setNonBlocking } from "../../drivers/host/process.ts";

/** Where output goes. */
export interface Sink {
  /** @returns A promise when no more may be given before it resolves. The chunk is the sink's to keep. */
  write(chunk: Uint8Array): Promise<void> | undefined;
}

const readBytesMax = 64 * 1024;
/** What one session may move before others have their turn. */
const turnBytes = 256 * 1024;
/** A pty holds at most this; it has no F_GETPIPE_SZ. @see tty_buffer.c, n_tty.c: 64 KiB of flip buffers and 4 KiB of line discipline */
const ptyCapacityBytes = 68 * 1024;

/** Chunks are cut from it one after the other, so that small outputs need no buffer each and nothing is copied. */
let slab = new Uint8Array(0);

/** @returns What there is to read, undefined at the end. */
function readChunk(fd: number, bytesMax: number): Uint8Array | typeof again | undefined {
  if (slab.length < readBytesMax) slab = new Uint8Array(4 * readBytesMax);
  const count = readFd(fd, slab.subarray(0, Math.min(readBytesMax, bytesMax)));
  if (count === again) return again;
  if (count === 0) return undefined;
  const chunk = slab.subarray(0, count);
  slab = slab.subarray(count);
  return chunk;
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
      const chunk = readChunk(this.#fd, budget);
      if (chunk === undefined || chunk === again) break;
      last.push(chunk);
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
    for (let moved = 0; moved < turnBytes;) {
      const chunk = readChunk(this.#fd, readBytesMax);
      if (chunk === undefined) return this.close();
      if (chunk === again) break;
      moved += chunk.length;
      this.#room = this.#sink.write(chunk);
      if (this.#room) return void this.#room.then(() => this.#resume());
    }
    this.#arm();
  }

  #resume(): void {
    this.#room = undefined;
    if (!this.#isClosed) this.#arm();
  }
}
