import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHost } from "../../drivers/host/real.ts";
import { Events } from "../events/events.ts";
import { Journal } from "../journal/journal.ts";
import { Database } from "../state/database.ts";
import { Pools } from "./pools.ts";
import { insertVolume } from "./rows.ts";

Deno.test("a deletion of a pool that was cut off goes to its end, with the rows of its images", async () => {
  const base = mkdtempSync(join(tmpdir(), "lido-pools-"));
  using _base = { [Symbol.dispose]: () => rmSync(base, { recursive: true }) };
  const paths = { storagePools: join(base, "storage-pools"), disks: join(base, "disks") };
  for (const path of Object.values(paths)) mkdirSync(path);
  const database = new Database(":memory:"), log = { warn: () => {} };
  const journal = new Journal(database, log);
  const pools = new Pools({
    database,
    journal,
    events: new Events(),
    host: createHost(),
    log,
    opened: () => {},
    paths,
  });
  await pools.create({ name: "p", driver: "dir", description: "", config: {} });
  insertVolume(database, { poolId: pools.id("p"), type: "image", name: "f", config: {} });
  database.run(
    "INSERT INTO journal (kind, payload, created_at) VALUES ('pool.delete', ?, '')",
    JSON.stringify({ name: "p", driver: "dir", config: pools.config("p") }),
  );
  assert.deepEqual(await journal.recover(), { open: 1, unsettled: [] });
  assert.deepEqual([pools.names(), database.all("SELECT name FROM storage_volumes")], [[], []]);
  database.close();
});
