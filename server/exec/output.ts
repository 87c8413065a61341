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

/** Reads a pipe or pty as fast as its sink takes it. */
export class OutputPump {
  readonly #fd: number;
  readonly #watch: Watch;
  readonly #sink: Sink;
  readonly #finished = Promise.withResolvers<void>();
  #isWaiting = false;
  #isDone = false;
  /** Bytes that may still be the command's own; undefined while it lives. */
  #budget: number | undefined;

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

  /** The command is dead: what it wrote is in the kernel's buffer now, which holds so many bytes. Reads no more than these, whoever else writes. */
  drain(): void {
    if (this.#isDone || this.#budget !== undefined) return;
    this.#budget = pipeCapacity(this.#fd) ?? ptyCapacityBytes;
    if (!this.#isWaiting) this.#read();
  }

  /** Reads no more; who writes gets SIGPIPE (a pipe) or SIGHUP (a terminal). */
  close(): void {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#watch.close();
    closeFd(this.#fd);
    this.#finished.resolve();
  }

  #arm(): void {
    this.#watch.arm("in", () => this.#read());
  }

  #read(): void {
    for (let moved = 0; moved < turnBytes && !this.#isDone;) {
      if (slab.length < readBytesMax) slab = new Uint8Array(4 * readBytesMax);
      const count = readFd(this.#fd, slab.subarray(0, Math.min(readBytesMax, this.#budget ?? readBytesMax)));
      if (count === again) {
        if (this.#budget !== undefined) this.close();
        else this.#arm();
        return;
      }
      if (count === 0) return this.close();
      const chunk = slab.subarray(0, count);
      slab = slab.subarray(count);
      moved += count;
      if (this.#budget !== undefined) this.#budget -= count;
      const room = this.#sink.write(chunk);
      if (room) {
        this.#isWaiting = true;
        void room.then(() => {
          this.#isWaiting = false;
          this.#goOn();
        });
        return;
      }
      if (this.#budget === 0) return this.close();
    }
    this.#goOn();
  }

  #goOn(): void {
    if (this.#isDone) return;
    if (this.#budget === 0) this.close();
    else if (this.#budget !== undefined) this.#read();
    else this.#arm();
  }
}
