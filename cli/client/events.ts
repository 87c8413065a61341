import type { Event } from "../../api/types.ts";
import type { Client } from "./client.ts";
import { type MessageSocket, openWebSocket } from "./websocket.ts";

/** Events buffered here; when it is full, the daemon buffers them up to its own limit and then ends the stream. */
const waitingMax = 10_000;

/** The daemon's events from now on; ends when the daemon closes the stream.
 * @param types Some of `lifecycle`, `logging`, `operation`; empty means the daemon's default.
 * @throws {ConnectionError} If the daemon cannot be reached. */
export async function* events(client: Client, types: readonly string[] = []): AsyncGenerator<Event> {
  const waiting: Event[] = [];
  let ended = false;
  let wake = () => {};
  const query = types.length === 0 ? "" : `?type=${types.map(encodeURIComponent).join(",")}`;
  let socket: MessageSocket | undefined = undefined;
  socket = await openWebSocket(client.endpoint, `/1.0/events${query}`, {
    message(data) {
      waiting.push(JSON.parse(data.toString()) as Event);
      if (waiting.length >= waitingMax) socket?.pause();
      wake();
    },
    close() {
      ended = true;
      wake();
    },
  });
  try {
    while (true) {
      const event = waiting.shift();
      if (waiting.length === 0 && socket.isPaused) socket.resume();
      if (event !== undefined) yield event;
      else if (ended) return;
      else await new Promise<void>((resolve) => wake = resolve);
    }
  } finally {
    socket.terminate();
  }
}
