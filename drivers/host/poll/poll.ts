import { epollEvent } from "./epoll_event.ts";
import { check, libc } from "../ffi/libc.ts";
import type { PollRequest } from "./poll_worker.ts";
import { workerUrl } from "../ffi/worker_url.ts";

const EPOLL_CLOEXEC = 0x80000, EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL = 2, EPOLL_CTL_MOD = 3;
const EPOLLIN = 1, EPOLLOUT = 4, EPOLLONESHOT = 0x40000000;
const EFD_CLOEXEC = 0x80000;

export type Interest = "in" | "out";

/** One watched descriptor. */
export interface Watch {
  /** Calls `ready` once when there is something to read (or the end, or an error), or space to write. */
  arm(interest: Interest, ready: () => void): void;
  /** Ends the watch: `ready` is not called any more. Call this before closing the descriptor. */
  close(): void;
}

/** Readiness of any number of descriptors, from one thread that sleeps in epoll_wait(2) for the whole daemon. The thread only reports ready ones;
 * reading and writing stay here, because moving data between threads costs more than moving a number. */
export class Poller {
  readonly #epoll = check("make an epoll", libc.epoll_create1(EPOLL_CLOEXEC));
  readonly #wake = check("make an eventfd", libc.eventfd(0, EFD_CLOEXEC));
  readonly #worker: Worker;
  /** By descriptor. A number may be reused while an event of the former descriptor is under way: the generation distinguishes them. */
  readonly #watched = new Map<number, { generation: number; ready?: (() => void) | undefined }>();
  #generation = 1;
  #stopped: Promise<void>;

  constructor() {
    this.#worker = new Worker(workerUrl("drivers/host/poll/poll_worker.ts"), { type: "module" });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#stopped = promise;
    this.#worker.onmessage = ({ data }: MessageEvent<Uint32Array | "stopped">) => {
      if (data === "stopped") return resolve();
      for (let index = 0; index < data.length; index += 2) this.#dispatch(data[index]!, data[index + 1]!);
    };
    this.#control(EPOLL_CTL_ADD, this.#wake, EPOLLIN, 0);
    const request: PollRequest = { epoll: this.#epoll, wake: this.#wake };
    this.#worker.postMessage(request);
  }

  watch(fd: number): Watch {
    const entry: { generation: number; ready?: (() => void) | undefined } = { generation: this.#generation++ };
    let added = false;
    return {
      arm: (interest, ready) => {
        entry.ready = ready;
        const events = (interest === "in" ? EPOLLIN : EPOLLOUT) | EPOLLONESHOT;
        if (!added) {
          this.#control(EPOLL_CTL_ADD, fd, events, entry.generation);
          this.#watched.set(fd, entry);
          added = true;
        } else {
          this.#control(EPOLL_CTL_MOD, fd, events, entry.generation);
        }
      },
      close: () => {
        entry.ready = undefined;
        if (!added) return;
        added = false;
        this.#watched.delete(fd);
        libc.epoll_ctl(this.#epoll, EPOLL_CTL_DEL, fd, null);
      },
    };
  }

  /** Number of watched descriptors; for tests and for the leak check. */
  get size(): number {
    return this.#watched.size;
  }

  /** Ends the thread. */
  async close(): Promise<void> {
    libc.write(this.#wake, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]), 8);
    await this.#stopped;
    this.#worker.terminate();
    libc.close(this.#wake);
    libc.close(this.#epoll);
  }

  #dispatch(fd: number, generation: number): void {
    const entry = this.#watched.get(fd);
    if (entry?.generation !== generation) return;
    const ready = entry.ready;
    entry.ready = undefined;
    ready?.();
  }

  #control(operation: number, fd: number, events: number, generation: number): void {
    const event = new Uint8Array(epollEvent.bytes);
    const view = new DataView(event.buffer);
    view.setUint32(0, events, true);
    view.setUint32(epollEvent.dataOffset, fd, true);
    view.setUint32(epollEvent.dataOffset + 4, generation, true);
    check("watch a descriptor", libc.epoll_ctl(this.#epoll, operation, fd, event));
  }
}
