/** Features of every pool, on the pool under test ($LIDO_TEST_POOL), and copies from it to the other drivers and back.
 * $LIDO_TEST_OTHER_POOL: an additional target pool, as words of `lido storage create`. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import type { StoragePool } from "../../../api/types.ts";
import { Daemon, fastPool } from "../../support/daemon.ts";

Deno.test(`a pool on ${fastPool.join(" ")}: facets, copies to other drivers, backups`, async (t) => {
  await using daemon = await Daemon.start();
  const other = process.env.LIDO_TEST_OTHER_POOL;
  const others: Record<string, readonly string[]> = {
    tree: ["btrfs", "size=512MiB"],
    plain: ["dir"],
    ...(other ? { other: other.split(" ") } : {}),
  };
  for (const [name, words] of Object.entries({ fast: fastPool, ...others })) {
    await daemon.ok("storage", "create", name, ...words);
  }
  const file = (name: string) => join(daemon.directory, name);
  const volume = (...words: string[]) => daemon.ok("storage", "volume", ...words);
  writeFileSync(file("first"), "as it was\n");
  writeFileSync(file("second"), "as it became\n");
  /** Reads the volume's file `data` without attaching the volume. */
  const read = async (pool: string, name: string) => {
    await volume("file", "pull", pool, `${name}/data`, file("pulled"));
    return readFileSync(file("pulled"), "utf8");
  };

  await t.step("every facet is there or has its reason, and the pool is well", async () => {
    const { facets, absent, status } = await daemon.query("/1.0/storage-pools/fast") as StoragePool;
    for (const facet of ["clone", "health", "quota", "resize", "send", "snapshot"]) {
      assert.ok(
        facets.includes(facet) !== /\w+ \w+/.test(absent[facet as keyof typeof absent] ?? ""),
        `${facet}: ${JSON.stringify({ facets, absent })}`,
      );
    }
    assert.equal(status, "Created");
  });

  await t.step("a volume with a snapshot goes to every other driver and comes back", async () => {
    await volume("create", "fast", "work");
    await volume("file", "push", file("first"), "fast", "work/data");
    await volume("snapshot", "fast", "work", "s0");
    await volume("file", "push", file("second"), "fast", "work/data");
    for (const pool of Object.keys(others)) {
      await volume("copy", "fast/work", `${pool}/there`);
      assert.equal(await read(pool, "there"), "as it became\n", pool);
      await volume("copy", `${pool}/there`, "fast/back");
      assert.equal(await read("fast", "back"), "as it became\n", pool);
      await volume("restore", "fast", "back", "s0");
      assert.equal(await read("fast", "back"), "as it was\n", pool);
      for (const [where, name] of [[pool, "there"], ["fast", "back"]] as const) await volume("delete", where, name);
    }
  });

  await t.step("a copy within the pool goes its own way", async () => {
    await volume("copy", "fast/work", "fast/copy");
    await volume("file", "push", file("first"), "fast", "copy/data");
    assert.equal(await read("fast", "work"), "as it became\n");
    await volume("delete", "fast", "copy");
  });

  await t.step("a backup holds the snapshots, and comes back here and on another driver", async () => {
    await volume("export", "fast", "work", file("backup"), "--compression", "none");
    for (const pool of ["fast", "plain"]) {
      await volume("import", pool, file("backup"), "again");
      assert.equal(await read(pool, "again"), "as it became\n", pool);
      await volume("restore", pool, "again", "s0");
      assert.equal(await read(pool, "again"), "as it was\n", pool);
      await volume("delete", pool, "again");
    }
  });

  await t.step("database and disk agree", async () => {
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  });
});
