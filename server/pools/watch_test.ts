import assert from "node:assert/strict";
import type { Driver } from "../../drivers/storage/driver.ts";
import { Events } from "../events/events.ts";
import { PoolWatch } from "./watch.ts";

function make() {
  const filling = { data: 0n, metadata: 0n };
  let failure: Error | undefined;
  const driver = {
    pool: { name: "p1" },
    facets: {
      health: {
        fill: () =>
          failure
            ? Promise.reject(failure)
            : Promise.resolve(Object.entries(filling).map(([of, used]) => ({ of, used, total: 1000n }))),
      },
    },
  } as unknown as Driver;
  const other = { pool: { name: "plain" }, facets: {} } as unknown as Driver;
  const open = [other, driver];
  const events = new Events(), seen: unknown[] = [], warnings: object[] = [];
  events.subscribe(["lifecycle"], ({ metadata }) => seen.push(metadata.context));
  const watch = new PoolWatch({ pools: { open: () => open }, events, log: { warn: (one) => warnings.push(one) } });
  return { watch, filling, seen, warnings, open, fail: (error?: Error) => failure = error };
}

Deno.test("PoolWatch tells each step once, upwards, and lists what is so now", async () => {
  const { watch, filling, seen } = make();
  const told: unknown[] = [];
  for (const data of [799n, 800n, 850n, 899n, 955n, 820n, 910n, 100n]) {
    filling.data = data;
    await watch.look();
    const [warning, ...more] = watch.list();
    assert.deepEqual(more, []);
    told.push([Number(data), warning?.severity, seen.splice(0)]);
  }
  const event = (percent: string, threshold: string) => [{ of: "data", percent, threshold }];
  assert.deepEqual(told, [
    [799, undefined, []],
    [800, "low", event("80", "80")],
    [850, "low", []],
    [899, "low", []],
    [955, "high", event("95.5", "95")],
    [820, "low", []],
    [910, "moderate", event("91", "90")],
    [100, undefined, []],
  ]);
});

Deno.test("PoolWatch: data and metadata apart; the message names pool and figure; a pool that goes takes its warnings", async () => {
  const { watch, filling, open } = make();
  filling.data = 810n;
  filling.metadata = 990n;
  await watch.look();
  assert.deepEqual(watch.list().map((one) => [one.last_message, one.severity, one.entity_url, one.count]), [
    ['81 % of the data of storage pool "p1" is used', "low", "/1.0/storage-pools/p1", 1],
    ['99 % of the metadata of storage pool "p1" is used', "high", "/1.0/storage-pools/p1", 1],
  ]);
  open.pop();
  await watch.look();
  assert.deepEqual(watch.list(), []);
});

Deno.test("PoolWatch: a pool that cannot tell is a line in the log", async () => {
  const { watch, fail, warnings } = make();
  fail(new Error("no such device"));
  await watch.look();
  assert.deepEqual(warnings, [{ pool: "p1", error: "no such device" }]);
});
