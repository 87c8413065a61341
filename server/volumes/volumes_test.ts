import assert from "node:assert/strict";
import type { Driver } from "../../drivers/storage/driver.ts";
import { Journal } from "../journal/journal.ts";
import { Database } from "../state/database.ts";
import { insertVolume } from "../store/rows.ts";
import { Volumes, type VolumesOptions } from "./volumes.ts";

Deno.test("a limit that could not be undone becomes what the volume's row says by then, not what it was", async () => {
  const database = new Database(":memory:"), journal = new Journal(database, { warn: () => {} });
  const poolId = database.run("INSERT INTO storage_pools (name, driver, state) VALUES ('p', 'dir', 'Created')").id;
  const limits: unknown[] = [];
  const driver = {
    facets: { quota: { set: (_volume: unknown, sizeBytes: unknown) => void limits.push(sizeBytes) } },
    exists: () => Promise.resolve(true),
  } as unknown as Driver;
  const pools = { names: () => ["p"], driver: () => driver };
  const mounts = { alone: <T>(_pool: string, _volume: unknown, work: () => Promise<T>) => Promise.resolve(work()) };
  new Volumes({ database, journal, pools, mounts } as unknown as VolumesOptions);
  const left = () =>
    database.run(
      "INSERT INTO journal (kind, payload, created_at) VALUES ('volume.limit', ?, '')",
      JSON.stringify({ pool: "p", type: "custom", name: "default_v", from: "1048576" }),
    );
  left();
  await journal.recover(); // the volume does not exist any more
  assert.deepEqual(limits, []);
  insertVolume(database, { poolId, type: "custom", name: "v", config: { size: "2MiB" } });
  left();
  assert.deepEqual(await journal.recover(), { open: 1, unsettled: [] });
  assert.deepEqual(limits, [2n * 1024n * 1024n]);
  database.close();
});
