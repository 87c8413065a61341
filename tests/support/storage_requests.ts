/** Storage requests by the bare API, for the tests of single drivers. */
import assert from "node:assert/strict";
import { RawClient } from "./raw.ts";

export class StorageRequests {
  readonly raw: RawClient;
  readonly directory: string;

  constructor(directory: string) {
    this.raw = new RawClient(directory);
    this.directory = directory;
  }

  /** @returns The response's metadata; nothing for an operation, which is awaited. @throws {Error} With the error of the response or the
   * operation. */
  // deno-lint-ignore no-explicit-any
  async ask(method: string, path: string, body?: unknown): Promise<any> {
    const answer = await this.raw.ask(method, `/1.0${path}`, body);
    if (answer.status >= 400) throw new Error(answer.body.error);
    if (answer.status !== 202) return answer.body.metadata;
    const operation = await this.raw.end(answer.body.metadata.id);
    if (operation.status_code !== 200) throw new Error(operation.err);
  }

  makePool(name: string, driver: string, config: object) {
    return this.ask("POST", "/storage-pools", { name, driver, config });
  }

  volume(pool: string, name: string, config: object = {}, source: object = {}) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom`, { name, type: "custom", config, source });
  }

  copy(from: string, name: string, pool: string, to: string, withSnapshots = true) {
    return this.volume(pool, to, {}, { type: "copy", pool: from, name, volume_only: !withSnapshots });
  }

  snapshot(pool: string, volume: string, name: string) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom/${volume}/snapshots`, { name });
  }

  restore(pool: string, volume: string, restore: string) {
    return this.ask("PUT", `/storage-pools/${pool}/volumes/custom/${volume}`, { restore });
  }

  async snapshots(pool: string, volume: string): Promise<string[]> {
    const found = await this.ask("GET", `/storage-pools/${pool}/volumes/custom/${volume}/snapshots?recursion=1`);
    return found.map(({ name }: { name: string }) => name);
  }

  delete(pool: string, volume: string) {
    return this.ask("DELETE", `/storage-pools/${pool}/volumes/custom/${volume}`);
  }

  /** Asserts that database and host agree. */
  async isWhole(): Promise<void> {
    assert.deepEqual(await this.ask("POST", "/check", {}), [], this.directory);
  }
}

/** A step that prints its failure at once: on an emulated machine the test's end is far away. */
export async function step(
  t: Deno.TestContext,
  name: string,
  work: (t: Deno.TestContext) => Promise<void>,
): Promise<void> {
  await t.step(name, async (t) => {
    try {
      await work(t);
    } catch (error) {
      console.error(error);
      throw error;
    }
  });
}
