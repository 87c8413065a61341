import type { Event } from "../../api/types.ts";
import type { Client } from "./client.ts";
import { type MessageSocket, openWebSocket } from "./websocket.ts";

/** Events that may wait to be taken; then the daemon keeps them, up to its own limit, and ends the stream. */
const waitingMax = 10_000;

/** The daemon's events from now on; ends when the daemon closes the stream.
 * @param types Which of `lifecycle`, `logging`, `operation`; empty means the daemon's own choice.
 * @throws {ConnectionError} If the daemon is not there. */
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
