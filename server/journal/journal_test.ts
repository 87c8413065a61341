import assert from "node:assert/strict";
import { Database } from "../state/database.ts";
import { Journal } from "./journal.ts";
import type { IntentKind } from "./kinds.ts";

interface Thing {
  readonly pool: string;
  readonly type: string;
  readonly name: string;
}

const v: Thing = { pool: "p", type: "custom", name: "v" };
const silent = { warn: () => {} };

Deno.test("what could not be settled is settled before anything of its name is made again", async () => {
  const database = new Database(":memory:");
  const journal = new Journal(database, silent);
  let isThere = false;
  const settled: string[] = [];
  const settle = (thing: Thing) => {
    if (!isThere) return Promise.reject(new Error("the pool is not there"));
    settled.push(thing.name);
    return Promise.resolve();
  };
  const creating = journal.kind<Thing>("volume.create", settle);
  const deleting = journal.kind<Thing>("volume.delete", settle);
  await creating(v)[Symbol.asyncDispose]();
  assert.deepEqual(journal.openOf("volume.create").map(({ payload, isActive }) => [payload, isActive]), [[v, false]]);

  assert.throws(() => creating(v), /An earlier operation on "v" was cut off/);
  assert.throws(() => deleting(v), /An earlier operation on "v" was cut off/);
  for (const other of [{ ...v, name: "w" }, { ...v, pool: "q" }, { ...v, type: "image" }]) {
    creating(other).commit(() => {});
  }
  isThere = true;
  await journal.recover();
  assert.deepEqual(settled, ["v"]);
  creating(v).commit(() => {});
  assert.deepEqual(journal.unsettled(), []);
});

Deno.test("recover() leaves the intents alone that somebody is at work on", async () => {
  const journal = new Journal(new Database(":memory:"), silent);
  const settled: string[] = [];
  const creating = journal.kind<Thing>("volume.create", (thing) => {
    settled.push(thing.name);
    return Promise.resolve();
  });
  const open = creating(v);
  assert.deepEqual(journal.openOf("volume.create").map(({ isActive }) => isActive), [true]);
  assert.deepEqual(await journal.recover(), { open: 0, unsettled: [] });
  open.commit(() => {});
  assert.deepEqual(settled, []);
});

Deno.test("settling may open intents of the same name", async () => {
  const journal = new Journal(new Database(":memory:"), silent);
  const deleting = journal.kind<Thing>("volume.delete", () => Promise.resolve());
  let tries = 0;
  const creating = journal.kind<Thing>("volume.create", (thing) => {
    if (++tries === 1) return Promise.reject(new Error("not now"));
    deleting(thing).commit(() => {});
    return Promise.resolve();
  });
  await creating(v)[Symbol.asyncDispose]();
  assert.deepEqual(await journal.recover(), { open: 1, unsettled: [] });
});

Deno.test("an intent whose row could not be deleted, on a full disk, takes no later one with it", async () => {
  const database = new Database(":memory:");
  const journal = new Journal(database, silent);
  let isFull = true;
  const run = database.run.bind(database);
  database.run = (sql, ...values) => {
    if (isFull && sql.startsWith("DELETE FROM journal")) throw new Error("the disk is full");
    return run(sql, ...values);
  };
  const creating = journal.kind<Thing>("volume.create", () => Promise.resolve());
  await creating(v)[Symbol.asyncDispose]();
  assert.equal(journal.unsettled().length, 1);
  isFull = false;
  const second = creating({ ...v, name: "second" });
  creating({ ...v, name: "third" });
  assert.deepEqual(journal.openOf<Thing>("volume.create").map(({ payload }) => payload.name), ["second", "third"]);
  second.commit(() => {});
});

Deno.test("what is gone takes with it what the journal holds of it, and what is held back keeps its name", async () => {
  const database = new Database(":memory:");
  const journal = new Journal(database, silent);
  const fails = () => Promise.reject(new Error("not now"));
  const left = async (kind: IntentKind, payload: object) => {
    await journal.kind(kind, fails)(payload)[Symbol.asyncDispose]();
  };
  await left("volume.shift", { pool: "p", volume: "v" });
  await left("volume-snapshot.delete", { pool: "p", name: "default_v", snapshot: "s0" });
  await left("volume.limit", { pool: "p", type: "custom", name: "default_v" });
  await left("volume.refresh", { pool: "q", type: "custom", name: "default_v" });
  await left("instance.restore", { name: "c1", pool: "p" });
  await left("instance.hotplug", { name: "c2" });
  const kinds = () => journal.unsettled().map(({ kind }) => kind).sort();
  const volumes = journal.kind<object>("volume.rename", fails),
    instances = journal.kind<object>("instance.rename", fails);
  const cutOff = /An earlier operation on ".*" was cut off/;
  assert.throws(() => volumes({ pool: "p", type: "custom", name: "default_v", to: "default_w" }), cutOff);
  assert.throws(() => instances({ pool: "p", name: "c1", to: "c3" }), cutOff);
  volumes({ pool: "p", type: "custom", name: "default_w", to: "default_x" }).commit(() => {});
  journal.forget("volume.delete", { pool: "p", type: "custom", name: "default_v" });
  assert.deepEqual(kinds(), ["instance.hotplug", "instance.restore", "volume.refresh"]);
  journal.forget("volume.delete", { pool: "p", type: "container", name: "c1" });
  assert.deepEqual(kinds(), ["instance.hotplug", "volume.refresh"]);
  journal.forget("pool.delete", { name: "q" });
  assert.deepEqual(kinds(), ["instance.hotplug"]);
});
