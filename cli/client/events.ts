import type { Event } from "../../api/types.ts";
import type { Client } from "./client.ts";
import { openWebSocket } from "./websocket.ts";

/** The daemon's events from now on; ends when the daemon closes the stream.
 * @param types Which of `lifecycle`, `logging`, `operation`; empty means the daemon's own choice.
 * @throws {ConnectionError} If the daemon is not there. */
export async function* events(client: Client, types: readonly string[] = []): AsyncGenerator<Event> {
  const waiting: Event[] = [];
  let ended = false;
  let wake = () => {};
  const query = types.length === 0 ? "" : `?type=${types.map(encodeURIComponent).join(",")}`;
  const socket = await openWebSocket(client.endpoint, `/1.0/events${query}`, {
    message(data) {
      waiting.push(JSON.parse(data.toString()) as Event);
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
      if (event !== undefined) yield event;
      else if (ended) return;
      else await new Promise<void>((resolve) => wake = resolve);
    }
  } finally {
    socket.terminate();
  }
}
