import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HostMounts } from "../../drivers/host/mounts/mounts.ts";
import { createHost } from "../../drivers/host/real.ts";
import { Events } from "../events/events.ts";
import { Journal } from "../journal/journal.ts";
import { Database } from "../state/database.ts";
import { Pools } from "./pools.ts";
import { insertVolume } from "../store/rows.ts";

/** On a host of its own, in a directory that is deleted afterwards. */
async function withPools(
  test: (
    parts: { base: string; pools: Pools; database: Database; journal: Journal; opened: string[] },
  ) => Promise<void>,
  host = createHost(),
): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), "lido-pools-"));
  using _base = { [Symbol.dispose]: () => rmSync(base, { recursive: true }) };
  const paths = { storagePools: join(base, "lido/storage-pools"), disks: join(base, "lido/disks") };
  for (const path of Object.values(paths)) mkdirSync(path, { recursive: true });
  const database = new Database(":memory:"), log = { warn: () => {} }, opened: string[] = [];
  const journal = new Journal(database, log);
  const pools = new Pools({
    database,
    journal,
    events: new Events(),
    host,
    log,
    opened: (name) => void opened.push(name),
    paths,
    lookAt: () => Promise.resolve(),
  });
  await test({ base, pools, database, journal, opened });
  database.close();
}

Deno.test("a deletion of a pool that was cut off goes to its end, with the rows of its images", () =>
  withPools(async ({ pools, database, journal }) => {
    await pools.create({ name: "p", driver: "dir", description: "", config: {} });
    insertVolume(database, { poolId: pools.id("p"), type: "image", name: "f", config: {} });
    database.run(
      "INSERT INTO journal (kind, payload, created_at) VALUES ('pool.delete', ?, '')",
      JSON.stringify({ name: "p", driver: "dir", config: pools.config("p") }),
    );
    assert.deepEqual(await journal.recover(), { open: 1, unsettled: [] });
    assert.deepEqual([pools.names(), database.all("SELECT name FROM storage_volumes")], [[], []]);
  }));

Deno.test("a pool that is tried again while it is being deleted is not opened afterwards", () => {
  const host = createHost(), mounts = new HostMounts();
  let onUnmount = () => {};
  mounts.unmount = (path) => {
    onUnmount();
    return HostMounts.prototype.unmount.call(mounts, path);
  };
  return withPools(async ({ base, pools, opened }) => {
    const source = join(base, "source");
    mkdirSync(source);
    await pools.create({ name: "p", driver: "dir", description: "", config: { source } });
    let retried: Promise<void> | undefined;
    onUnmount = () => void (retried ??= pools.retry());
    try {
      await pools.delete("p");
      assert.ok(retried);
      await retried;
      assert.deepEqual([pools.names(), pools.open().length, opened], [[], 0, []]);
      assert.equal(await mounts.at(join(base, "lido/storage-pools/p")), undefined);
    } finally {
      await mounts.unmount(join(base, "lido/storage-pools/p"));
    }
  }, { ...host, mounts });
});
