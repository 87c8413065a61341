import type { Event } from "../../api/types.ts";
import type { LifecycleAction, LifecycleContext } from "./actions.ts";

export type EventType = Event["type"];
export type EventListener = (event: Event) => void;

/** Sends events to all listeners (the events websocket, the operation waiters). Publishing never waits for a listener. */
export class Events {
  readonly #listeners = new Map<EventListener, ReadonlySet<EventType>>();
  readonly #interested = new Map<EventType, (isListenedTo: boolean) => void>();

  /** @returns A function that ends the subscription. */
  subscribe(types: Iterable<EventType>, listener: EventListener): () => void {
    this.#listeners.set(listener, new Set(types));
    this.#tellInterest();
    return () => {
      this.#listeners.delete(listener);
      this.#tellInterest();
    };
  }

  isListenedTo(type: EventType): boolean {
    for (const types of this.#listeners.values()) if (types.has(type)) return true;
    return false;
  }

  /** Lets a publisher make events only while they have a listener.
   * @param told Called whenever a subscription begins or ends: whether any is for `type`. */
  onInterest(type: EventType, told: (isListenedTo: boolean) => void): void {
    this.#interested.set(type, told);
  }

  #tellInterest(): void {
    for (const [type, told] of this.#interested) told(this.isListenedTo(type));
  }

  publish(type: EventType, metadata: Record<string, unknown>): void {
    if (this.#listeners.size === 0) return;
    const event: Event = { type, timestamp: new Date().toISOString(), metadata, location: "none", project: "default" };
    for (const [listener, types] of this.#listeners) if (types.has(type)) listener(event);
  }

  /** A lifecycle event as LXD's. @param source The thing's URL. */
  lifecycle<A extends LifecycleAction>(action: A, source: string, context?: LifecycleContext<A>): void {
    this.publish("lifecycle", { action, source, context: context ?? {} });
  }
}
