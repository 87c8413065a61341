import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import type { WebSocket } from "ws";
import { Events } from "../events/events.ts";
import { eventStream } from "./events.ts";

/** A websocket whose client reads nothing, or all. */
class FakeSocket extends EventEmitter {
  readonly sent: string[] = [];
  bufferedAmount = 0;
  readonly #reads: boolean;

  constructor(reads: boolean) {
    super();
    this.#reads = reads;
  }

  send(text: string): void {
    this.sent.push(text);
    if (!this.#reads) this.bufferedAmount += text.length;
  }

  ping(): void {}

  terminate(): void {
    this.emit("close");
  }
}

Deno.test("a client that does not read its events is dropped at 8 MiB, others go on", () => {
  const events = new Events();
  const listen = (reads: boolean) => {
    const socket = new FakeSocket(reads);
    eventStream(events, new URLSearchParams("type=logging"))(socket as unknown as WebSocket);
    return socket;
  };
  const slow = listen(false), quick = listen(true);
  const message = "x".repeat(1 << 20);
  for (let count = 0; count < 20; count++) events.publish("logging", { message });
  assert.equal(quick.sent.length, 20);
  assert.equal(slow.sent.length, 8);
  assert.equal(events.isListenedTo("logging"), true);
  quick.terminate();
  assert.equal(events.isListenedTo("logging"), false);
});
