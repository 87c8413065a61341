import type { Event } from "../../api/types.ts";

export type EventType = Event["type"];
export type EventListener = (event: Event) => void;

/** Fans events out to whoever listens (the events websocket, the operation waiters). Publishing never waits for a listener. */
export class Events {
  readonly #listeners = new Map<EventListener, ReadonlySet<EventType>>();

  /** @returns A function that ends the subscription. */
  subscribe(types: Iterable<EventType>, listener: EventListener): () => void {
    this.#listeners.set(listener, new Set(types));
    return () => this.#listeners.delete(listener);
  }

  publish(type: EventType, metadata: Record<string, unknown>): void {
    if (this.#listeners.size === 0) return;
    const event: Event = { type, timestamp: new Date().toISOString(), metadata, location: "none", project: "default" };
    for (const [listener, types] of this.#listeners) if (types.has(type)) listener(event);
  }

  /** A lifecycle event as LXD's: `action` such as "storage-volume-created", `source` the thing's URL. */
  lifecycle(action: string, source: string, context: Record<string, unknown> = {}): void {
    this.publish("lifecycle", { action, source, context });
  }
}
