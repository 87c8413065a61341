import assert from "node:assert/strict";
import { Database } from "../state/database.ts";
import { Changes } from "./changes.ts";

Deno.test("the database tells which volumes, instances, pools and profiles were changed", () => {
  const database = new Database(":memory:");
  const changes = new Changes(database);
  let told = 0;
  database.afterWrite(() => told++);
  const took = () => changes.take().map((one) => Object.values(one).join(" ")).sort();

  const pool = database.run("INSERT INTO storage_pools (name, driver, state) VALUES ('p', 'dir', 'Created')").id;
  assert.equal(told, 1);
  assert.deepEqual(took(), ["pool p"]);
  assert.deepEqual(took(), []);
  const insert = (type: string, name: string) =>
    database.run("INSERT INTO storage_volumes (pool_id, type, name, created_at) VALUES (?, ?, ?, '')", pool, type, name)
      .id;
  const volume = insert("custom", "v");
  insert("image", "f");
  insert("container", "c1");
  assert.deepEqual(took(), ["instance p c1", "volume p v"]);
  database.run("UPDATE storage_volumes SET name = 'w' WHERE id = ?", volume);
  assert.deepEqual(took(), ["volume p v", "volume p w"]);
  database.run("INSERT INTO storage_volume_snapshots (volume_id, name, created_at) VALUES (?, 's0', '')", volume);
  assert.deepEqual(took(), ["volume p w"]);
  database.run("DELETE FROM storage_volumes WHERE id = ?", volume);
  assert.deepEqual(took(), ["volume p w"]);
  const instance = database.run("INSERT INTO instances (name, architecture, created_at) VALUES ('c1', '', '')").id;
  database.run("INSERT INTO instance_snapshots (instance_id, name, created_at) VALUES (?, 's0', '')", instance);
  database.run("UPDATE profiles SET description = 'x' WHERE name = 'default'");
  assert.deepEqual(took(), ["instance c1", "profile default"]);

  insert("custom", "default_w");
  assert.deepEqual(took(), ["volume p default_w"]);

  const close = (kind: string, payload: object) => {
    const { id } = database.run(
      "INSERT INTO journal (kind, payload, created_at) VALUES (?, ?, '')",
      kind,
      JSON.stringify(payload),
    );
    database.run("DELETE FROM journal WHERE id = ?", id);
    return took();
  };
  assert.deepEqual(close("instance.restored", { name: "c1", pool: "p", snapshot: "s0" }), ["instance p c1"]);
  assert.deepEqual(close("volume.rename", { pool: "p", type: "custom", name: "default_a", to: "default_b" }), [
    "volume p a",
    "volume p b",
  ]);
  assert.deepEqual(close("volume.shift", { pool: "p", volume: "a", from: "[]", to: "[]" }), ["volume p a"]);
  assert.deepEqual(close("volume.create", { pool: "p", type: "image", name: "f" }), []);
  assert.deepEqual(close("pool.grow", { name: "p", size: "1" }), []);

  told = 0;
  assert.throws(() =>
    database.transaction(() => {
      database.run("UPDATE storage_pools SET description = 'x'");
      throw new Error("given up");
    })
  );
  assert.equal(told, 0);
  assert.deepEqual(took(), []);
  database.close();
});
