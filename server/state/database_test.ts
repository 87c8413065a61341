import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Database } from "./database.ts";

/** A database that may not grow: SQLite then fails as on a full disk. */
function full(directory: string): Database {
  const database = new Database(join(directory, "lido.db"));
  database.run("INSERT INTO config (key, value) VALUES ('a', 'b')");
  const { page_count } = database.get("PRAGMA page_count")!;
  database.get(`PRAGMA max_page_count = ${page_count}`);
  return database;
}

Deno.test("Database on a full disk refuses with the reason, changes nothing, and takes from its reserve only for what makes room", () => {
  const directory = mkdtempSync(join(tmpdir(), "lido-database-"));
  const database = full(directory);
  try {
    const reserve = join(directory, "lido.db-reserve");
    const add = () => database.run("INSERT INTO config (key, value) VALUES ('big', ?)", "x".repeat(100_000));
    const expected = {
      code: "unavailable",
      message: /^No space left on device for the daemon's database ".*lido\.db"/,
    };
    assert.throws(add, expected);
    assert.throws(() => database.transaction(add), expected);
    assert.ok(existsSync(reserve));
    assert.throws(() => database.transaction(add, { makesRoom: true }), expected);
    assert.equal(existsSync(reserve), false);
    assert.deepEqual(database.all("SELECT key FROM config").map(({ key }) => key), ["a"]);
    database.run("DELETE FROM config WHERE key = 'a'");
    assert.equal(existsSync(reserve), true, "the reserve is filled again as soon as that is possible");
  } finally {
    database.close();
    rmSync(directory, { recursive: true });
  }
});
