import type { WebSocket } from "ws";
import { LidoError } from "../../api/errors.ts";
import type { Events, EventType } from "../events/events.ts";

const types: readonly EventType[] = ["lifecycle", "logging", "operation"];
const pingEveryMs = 10_000;
/** A listener that does not read is dropped rather than kept in memory without end. */
const queuedMaxBytes = 8 << 20;

/** @returns A function that serves a client of /1.0/events. @throws {LidoError} bad_request for an unknown type. */
export function eventStream(events: Events, query: URLSearchParams): (socket: WebSocket) => void {
  const asked = (query.get("type") ?? "").split(",").filter(Boolean);
  for (const type of asked) {
    if (!types.includes(type as EventType)) {
      throw new LidoError("bad_request", `Invalid event type "${type}": ${types.join(", ")} are allowed`);
    }
  }
  const wanted = asked.length > 0 ? asked as EventType[] : types;
  return (socket) => {
    const end = events.subscribe(wanted, (event) => {
      if (socket.bufferedAmount > queuedMaxBytes) return socket.terminate();
      socket.send(JSON.stringify(event) + "\n");
    });
    const ping = setInterval(() => socket.ping("keepalive"), pingEveryMs);
    socket.on("close", () => {
      clearInterval(ping);
      end();
    });
  };
}
