import assert from "node:assert/strict";
import { Events } from "../events/events.ts";
import { type Operation, Operations } from "../operations/operations.ts";
import { Database } from "../state/database.ts";
import { insertVolume } from "./rows.ts";
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
