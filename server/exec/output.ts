import type { Poller, Watch } from "../../drivers/host/poll/poll.ts";
import { again, closeFd, pipeCapacity, readFd, setNonBlocking } from "../../drivers/host/process/process.ts";

/** Receives a command's output. */
export interface Sink {
  /** @returns A promise if no more output may be passed before it resolves. The sink may keep the chunk. */
  write(chunk: Uint8Array): Promise<void> | undefined;
}

/** Bytes that one session may move before others have their turn, and the longest message to a client. */
const turnBytes = 256 * 1024;
/** Bytes that a pty can hold; it has no F_GETPIPE_SZ. @see tty_buffer.c, n_tty.c: 64 KiB of flip buffers and 4 KiB of line discipline */
const ptyCapacityBytes = 68 * 1024;

/** Buffer that chunks are sliced from one after the other, so that small outputs need no buffer each and nothing is copied. */
let slab = new Uint8Array(0);
const slabBytes = 2 * turnBytes;
/** A smaller rest of the slab is not used for a read. */
const slabRestBytes = 64 * 1024;
/** The most that one read of a terminal returns. @see n_tty.c */
const terminalReadBytes = 4095;

/** Reads all that is available now. A read that does not fill its buffer was the last: another would only cost a call, or race with a writer for a
 * few bytes at a time.
 * @returns The bytes, perhaps none, and whether the stream has ended. */
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
  /** Pending while the sink takes no more output. */
  #room: Promise<void> | undefined;
  #isClosed = false;

  /** @param fd Read end; the pump owns and closes it. */
  constructor(poller: Poller, fd: number, sink: Sink) {
    this.#fd = fd;
    this.#sink = sink;
    setNonBlocking(fd);
    this.#watch = poller.watch(fd);
    this.#arm();
  }

  /** Resolves when the output has ended and the sink has taken all of it. */
  get finished(): Promise<void> {
    return this.#finished.promise;
  }

  /** Called when the command has ended: its last output is in the kernel's buffer, whose size is limited. That much is read at once, even if the sink
   * is slow or other processes go on writing. */
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

  /** Stops reading; writers get SIGPIPE (a pipe) or SIGHUP (a terminal). */
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
