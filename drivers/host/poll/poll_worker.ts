/** The thread of `poll.ts`: sleeps until a descriptor is ready and reports it. Interest is one-shot, so a ready descriptor is not reported again
 * before the main thread has handled it. */
import { epollEvent } from "./epoll_event.ts";

export interface PollRequest {
  readonly epoll: number;
  readonly wake: number;
}

const eventsMax = 128;
const thread = self as unknown as {
  onmessage: (message: MessageEvent<PollRequest>) => void;
  postMessage(data: unknown): void;
};

thread.onmessage = async ({ data: { epoll, wake } }) => {
  // Loaded only now: an import of libc awaits, and a message that arrives before `onmessage` is set would be lost.
  const { libc } = await import("../ffi/libc.ts");
  const events = new Uint8Array(epollEvent.bytes * eventsMax);
  const view = new DataView(events.buffer);
  for (;;) {
    const count = Number(libc.epoll_wait(epoll, events, eventsMax, -1));
    if (count <= 0) continue; // EINTR
    const ready = new Uint32Array(count * 2);
    for (let index = 0; index < count; index++) {
      const fd = view.getUint32(index * epollEvent.bytes + epollEvent.dataOffset, true);
      if (fd === wake) return thread.postMessage("stopped");
      ready[index * 2] = fd;
      ready[index * 2 + 1] = view.getUint32(index * epollEvent.bytes + epollEvent.dataOffset + 4, true);
    }
    thread.postMessage(ready);
  }
};
