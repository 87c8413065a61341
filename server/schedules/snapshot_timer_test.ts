import assert from "node:assert/strict";
import { Events } from "../events/events.ts";
import { type Operation, Operations } from "../operations/operations.ts";
import { Database } from "../state/database.ts";
import { insertVolume } from "../store/rows.ts";
import { SnapshotTimer } from "./snapshot_timer.ts";

Deno.test("expired snapshots go at their time, without being asked for, and schedules are known", async () => {
  const database = new Database(":memory:"), events = new Events(), operations = new Operations(events);
  const poolId = database.run("INSERT INTO storage_pools (name, driver, state) VALUES ('p', 'dir', 'Created')").id;
  const id = insertVolume(database, { poolId, type: "custom", name: "v", config: { "snapshots.schedule": "@daily" } });
  insertVolume(database, { poolId, type: "custom", name: "w", config: { "snapshots.schedule": "@never" } });
  const deleted = Promise.withResolvers<string>();
  const run = (work: () => void): Operation =>
    operations.start({ description: "", run: () => Promise.resolve(work()) });
  const timer = new SnapshotTimer({
    database,
    events,
    log: { warn: (context) => assert.fail(JSON.stringify(context)) },
    snapshotVolume: () => assert.fail("not due"),
    deleteVolumeSnapshot: (...words) =>
      run(() => {
        database.run("DELETE FROM storage_volume_snapshots");
        deleted.resolve(words.join("/"));
      }),
    deleteInstanceSnapshot: () => assert.fail("there is none"),
  });
  timer.start();
  assert.deepEqual(timer.jobs().map(({ what }) => what), ["snapshot of p/v"]);
  const at = new Date(Date.now() + 200);
  database.run(
    "INSERT INTO storage_volume_snapshots (volume_id, name, created_at, expires_at) VALUES (?, 's', '', ?)",
    id,
    at.toISOString(),
  );
  events.lifecycle("storage-volume-snapshot-created", "/1.0/storage-pools/p/volumes/custom/v/snapshots/s");
  assert.equal(await deleted.promise, "p/v/s");
  assert.ok(Date.now() >= at.getTime());
  timer.close();
  await operations.close();
  database.close();
});

Deno.test("what was begun is not begun again while it takes its time, what fails not at once, and others do not wait for it", async () => {
  const database = new Database(":memory:"), events = new Events(), operations = new Operations(events);
  const poolId = database.run("INSERT INTO storage_pools (name, driver, state) VALUES ('p', 'dir', 'Created')").id;
  const id = insertVolume(database, { poolId, type: "custom", name: "v", config: {} });
  const add = (name: string) =>
    database.run(
      "INSERT INTO storage_volume_snapshots (volume_id, name, created_at, expires_at) VALUES (?, ?, '', ?)",
      id,
      name,
      new Date(Date.now() - 1000).toISOString(),
    );
  const started: string[] = [], warnings: object[] = [];
  const slow = Promise.withResolvers<void>(),
    later = Promise.withResolvers<void>(),
    last = Promise.withResolvers<void>();
  const changed = () => events.lifecycle("storage-volume-snapshot-deleted", "/1.0/storage-pools/p/volumes/custom/v");
  const timer = new SnapshotTimer({
    database,
    events,
    log: { warn: (context) => void warnings.push(context) },
    snapshotVolume: () => assert.fail("not due"),
    deleteVolumeSnapshot: (_pool, _volume, name) =>
      operations.start({
        description: "",
        run: async () => {
          started.push(name);
          if (name === "fails") throw new Error("it is refused");
          changed(); // something else changes while this task runs
          if (name === "slow") await slow.promise;
          database.run("DELETE FROM storage_volume_snapshots WHERE name = ?", name);
          changed();
          if (name === "later") later.resolve();
          if (name === "last") last.resolve();
        },
      }),
    deleteInstanceSnapshot: () => assert.fail("there is none"),
  });
  for (const name of ["fails", "slow", "behind"]) add(name);
  timer.start();
  // "later" is added, and due, only while "slow" runs.
  const isAtWork = Promise.withResolvers<void>();
  const unsubscribe = events.subscribe(["lifecycle"], () => {
    if (started.includes("slow")) isAtWork.resolve();
  });
  await isAtWork.promise;
  unsubscribe();
  add("later");
  changed();
  await later.promise;
  assert.deepEqual(started, ["fails", "slow", "later"]);
  slow.resolve();
  add("last");
  changed();
  await last.promise;
  assert.deepEqual([...started].sort(), ["behind", "fails", "last", "later", "slow"]);
  assert.equal(warnings.length, 1);
  timer.close();
  await operations.close();
  database.close();
});
