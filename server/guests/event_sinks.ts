import type { GuestEvent } from "./guest_events.ts";

const pingEveryMs = 10_000;
/** A guest that does not read is dropped rather than kept in memory without end. */
const queuedMaxBytes = 256 << 10;

/** A guest's subscription to events, by a websocket or a bare stream. */
export interface EventSink {
  send(text: string): unknown;
  ping?(): void;
  queuedBytes(): number;
  destroy(): void;
  onClose(listener: () => void): unknown;
}

/** The guests' subscriptions, by instance and event type. */
export class EventSinks {
  readonly #sinks = new Map<string, Set<{ readonly types: ReadonlySet<string>; readonly sink: EventSink }>>();

  add(name: string, types: ReadonlySet<string>, sink: EventSink): void {
    const ofGuest = this.#sinks.get(name) ?? new Set();
    this.#sinks.set(name, ofGuest);
    const entry = { types, sink };
    ofGuest.add(entry);
    const ping = sink.ping && setInterval(() => sink.ping!(), pingEveryMs);
    sink.onClose(() => {
      clearInterval(ping);
      ofGuest.delete(entry);
      if (ofGuest.size === 0 && this.#sinks.get(name) === ofGuest) this.#sinks.delete(name);
    });
  }

  publish(name: string, event: GuestEvent): void {
    const text = `${JSON.stringify(event)}\n`;
    for (const { types, sink } of this.#sinks.get(name) ?? []) {
      if (!types.has(event.type)) continue;
      if (sink.queuedBytes() > queuedMaxBytes) sink.destroy();
      else sink.send(text);
    }
  }
}
