import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import type { Socket } from "node:net";
import { Strangers } from "./strangers.ts";

class FakeSocket extends EventEmitter {
  destroyed = false;
  constructor(readonly remoteAddress: string) {
    super();
  }
  destroy() {
    this.destroyed = true;
    this.emit("close");
  }
}
const open = (address = "192.0.2.1") => new FakeSocket(address) as unknown as Socket & FakeSocket;
const deadlinesMs = { handshake: 30, header: 60, body: 30, answer: 30, end: 30 };

Deno.test("a connection has a deadline for each phase, and none once its client is trusted", async () => {
  const strangers = new Strangers({ deadlinesMs });
  const silent = open(), slow = open(), trusted = open();
  for (const socket of [silent, slow, trusted]) strangers.admit(socket, "handshake");
  strangers.release(trusted);
  strangers.expect(slow, "header");
  strangers.expect(trusted, "body");
  await once(silent, "close");
  assert.deepEqual([slow.destroyed, strangers.size], [false, 1]);
  await once(slow, "close");
  assert.deepEqual([trusted.destroyed, strangers.size], [false, 0]);
});

Deno.test("the oldest of a network gives way, and the oldest of all", () => {
  const told: unknown[][] = [];
  const strangers = new Strangers({ networkMax: 2, allMax: 3, onLimit: (...what) => told.push(what) });
  const far = open("2001:db8::1"), near = [open(), open(), open(), open()] as const, last = open("198.51.100.1");
  strangers.admit(far, "handshake");
  for (const socket of near) strangers.admit(socket, "header");
  assert.deepEqual(near.map(({ destroyed }) => destroyed), [true, true, false, false]);
  assert.equal(far.destroyed, false);
  strangers.admit(last, "handshake");
  assert.deepEqual([far.destroyed, strangers.size], [true, 3]);
  assert.deepEqual(told, [["192.0.2.1", 2], ["2001:db8:0:0::/64", 3]]);
  for (const socket of [near[2], near[3], last]) socket.destroy();
  assert.equal(strangers.size, 0);
});
