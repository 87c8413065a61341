/** A client that keeps sending requests while the daemon is attacked: one tenant's files must not delay other tenants' requests. */
import assert from "node:assert/strict";
import { RawClient } from "./raw.ts";
import { slowness } from "./slowness.ts";

const pauseMs = 20;
/** Limit for nine in ten responses; the tenth may be slow on a busy machine. */
const usualMs = 200 * slowness;
/** Limit for every response. A daemon that waits for a filesystem waits for ever, or until its own time limits of seconds. */
const worstMs = 2000 * slowness;

export class SecondClient implements AsyncDisposable {
  readonly #client: RawClient;
  readonly #times: number[] = [];
  readonly #over = Promise.withResolvers<void>();
  #isOver = false;

  constructor(directory: string) {
    this.#client = new RawClient(directory);
    void this.#ask();
  }

  /** Asserts that all requests were answered in time. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    await this.#over.promise;
    const times = this.#times.toSorted((left, right) => left - right);
    assert.ok(times.length > 0);
    const usual = times[Math.floor(times.length * 0.9)]!, worst = times.at(-1)!;
    assert.ok(usual <= usualMs, `of ${times.length} answers to a second client a tenth came after ${usual} ms`);
    assert.ok(worst <= worstMs, `of ${times.length} answers to a second client one came after ${worst} ms`);
  }

  async #ask(): Promise<void> {
    while (!this.#isOver) {
      const started = performance.now();
      const late = new Promise<"late">((resolve) => setTimeout(resolve, 2 * worstMs, "late").unref());
      const answer = await Promise.race([this.#client.ask("GET", "/1.0/instances").catch(() => "late"), late]);
      this.#times.push(answer === "late" ? Infinity : performance.now() - started);
      if (answer === "late") break;
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
    this.#over.resolve();
  }
}
