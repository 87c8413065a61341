import { once } from "node:events";
import { WebSocket } from "ws";
import type { Daemon } from "./daemon.ts";
import { slowness } from "./slowness.ts";

/** A daemon's lifecycle events since this was opened. */
export class LifecycleEvents implements Disposable {
  readonly #socket: WebSocket;
  readonly #seen: { action: string; source: string }[] = [];
  #look = () => {};

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on("message", (data) => {
      this.#seen.push(JSON.parse(String(data)).metadata);
      this.#look();
    });
  }

  static async open(daemon: Daemon): Promise<LifecycleEvents> {
    const path = "/1.0/events?type=lifecycle";
    const events = new LifecycleEvents(new WebSocket(`ws+unix:${daemon.directory}/unix.socket:${path}`));
    await once(events.#socket, "open");
    return events;
  }

  /** Resolves when the instance has had one of these actions, now or before.
   * @throws {Error} If it has not within `limitMs`; the text lists the actions seen. */
  async until(instance: string, actions: readonly string[], limitMs: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const seen = () => this.#seen.filter(({ source }) => source.split("?")[0] === `/1.0/instances/${instance}`);
    this.#look = () => seen().some(({ action }) => actions.includes(action)) && resolve();
    const timer = setTimeout(() => {
      const actual = seen().map(({ action }) => action).join(", ") || "nothing";
      reject(new Error(`"${instance}" had no ${actions.join(" or ")} within ${limitMs * slowness} ms, but ${actual}`));
    }, limitMs * slowness);
    try {
      this.#look();
      await promise;
    } finally {
      clearTimeout(timer);
      this.#look = () => {};
    }
  }

  [Symbol.dispose](): void {
    this.#socket.terminate();
  }
}
