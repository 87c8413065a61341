import assert from "node:assert/strict";
import { type Hold, Locks } from "./locks.ts";

/** Holders that record when they begin, and end when the test says so. */
class Holders {
  readonly locks = new Locks();
  readonly begun: string[] = [];
  readonly #ends = new Map<string, () => void>();

  hold(name: string, signal?: AbortSignal, kind?: Hold) {
    return this.locks.hold(
      ["v"],
      () => {
        this.begun.push(name);
        return new Promise<void>((resolve) => this.#ends.set(name, resolve));
      },
      signal,
      kind,
    );
  }

  async end(name: string): Promise<void> {
    this.#ends.get(name)!();
    await new Promise((resolve) => setTimeout(resolve));
  }
}

Deno.test("changes come one after the other, looks together, each in its turn", async () => {
  const holders = new Holders();
  const all = [
    holders.hold("change 1"),
    holders.hold("look 1", undefined, "look"),
    holders.hold("look 2", undefined, "look"),
    holders.hold("change 2"),
    holders.hold("look 3", undefined, "look"),
  ];
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(holders.begun, ["change 1"]);
  await holders.end("change 1");
  assert.deepEqual(holders.begun, ["change 1", "look 1", "look 2"]);
  await holders.end("look 2");
  assert.equal(holders.begun.length, 3, "the change waits for every look");
  await holders.end("look 1");
  assert.equal(holders.begun.at(-1), "change 2");
  assert.equal(holders.begun.length, 4, "a look waits for the change before it");
  await holders.end("change 2");
  await holders.end("look 3");
  await Promise.all(all);
  assert.equal(holders.locks.isHeld("v"), false);
});

Deno.test("a look is held until the last one is done, and what fails holds nobody up", async () => {
  const holders = new Holders();
  const first = holders.hold("look 1", undefined, "look");
  const failing = holders.locks.hold(["v"], () => Promise.reject(new Error("no")), undefined, "look");
  await assert.rejects(failing, /no/);
  assert.equal(holders.locks.isHeld("v"), true);
  const change = holders.hold("change");
  await holders.end("look 1");
  assert.deepEqual(holders.begun, ["look 1", "change"]);
  await holders.end("change");
  await Promise.all([first, change]);
  assert.equal(holders.locks.isHeld("v"), false);
});

Deno.test("a wait that is cancelled does nothing, and keeps the turn of the others", async () => {
  const holders = new Holders();
  const first = holders.hold("change 1");
  const waiting = new AbortController();
  const cancelled = holders.hold("look", waiting.signal, "look");
  const last = holders.hold("change 2");
  waiting.abort(new Error("cancelled"));
  await assert.rejects(cancelled, /cancelled/);
  await holders.end("change 1");
  assert.deepEqual(holders.begun, ["change 1", "change 2"]);
  await holders.end("change 2");
  await Promise.all([first, last]);
});
