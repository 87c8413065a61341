import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Database } from "../state/database.ts";
import { Locks } from "../store/locks.ts";
import { Check, type CheckOptions } from "./check.ts";

Deno.test("what an operation makes while a repair is under way is not taken for what one has left", async () => {
  const base = mkdtempSync(join(tmpdir(), "lido-check-"));
  const database = new Database(":memory:"), locks = new Locks();
  try {
    const paths = {
      storagePools: join(base, "storage-pools"),
      disks: join(base, "disks"),
      images: join(base, "images"),
    };
    for (const path of Object.values(paths)) mkdirSync(path);
    const present = new Set(["a", "b"]), removed: string[] = [];
    const begun = Promise.withResolvers<void>();
    let over = Promise.resolve();
    const remove = (name: string) => {
      removed.push(name);
      present.delete(name);
      // A restore of "b" begins: it makes the leftover's file again, and uses it until its end.
      over = locks.hold(["p/container/b"], () => begun.promise.then(() => void present.delete("b")));
      setTimeout(begun.resolve, 20);
      return Promise.resolve();
    };
    const driver = {
      pool: { name: "p", root: join(base, "p") },
      list: () => Promise.resolve([]),
      leftovers: () =>
        Promise.resolve([...present].map((name) => ({ place: name, of: name, remove: () => remove(name) }))),
    };
    const check = new Check({
      database,
      paths,
      journal: { unsettled: () => [] },
      pools: {
        list: () => [{ name: "p", status: "Created" }],
        names: () => ["p"],
        ready: () => Promise.resolve(driver),
      },
      volumes: { locks, isBusy: () => false },
      records: { idle: () => Promise.resolve(), verify: () => Promise.resolve([]) },
      host: { mounts: { list: () => Promise.resolve([]) }, loops: { list: () => Promise.resolve([]) } },
      runtime: { strays: () => Promise.resolve([]) },
    } as unknown as CheckOptions);
    const problems = await check.run(true);
    await over;
    assert.deepEqual(problems.map(({ subject, repaired }) => [subject, repaired]), [
      ["pool/p/a", true],
      ["pool/p/b", true],
    ]);
    assert.deepEqual(removed, ["a"]);
  } finally {
    database.close();
    rmSync(base, { recursive: true });
  }
});
