/** Devices follow a volume to its new name or pool, and a snapshot is copied to a new volume: by our client and the real one. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

Deno.test("volumes that are renamed, moved, or made of a snapshot", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  const volume = (...words: string[]) => daemon.ok("storage", "volume", ...words);
  const file = (pool: string, name: string) =>
    join(daemon.directory, "storage-pools", pool, `custom/default_${name}/data`);
  const read = (pool: string, name: string) => succeed(["cat", file(pool, name)]);

  await volume("create", "fast", "v", "user.note=first");
  writeFileSync(file("fast", "v"), "as it was");
  await volume("snapshot", "fast", "v", "s0");
  await volume("set", "fast", "v", "user.note=second");
  writeFileSync(file("fast", "v"), "as it became");

  for (const client of ["lido", "lxc"] as const) {
    await t.step(`${client}: a snapshot becomes a volume, here and on another driver`, async () => {
      const run = client === "lido" ? daemon.ok.bind(daemon) : daemon.lxc.bind(daemon);
      for (const pool of ["fast", "plain"]) {
        await run("storage", "volume", "copy", "fast/v/s0", `${pool}/then`);
        assert.equal(await read(pool, "then"), "as it was");
        writeFileSync(file(pool, "then"), "and can be written to");
        assert.equal(await volume("get", pool, "then", "user.note"), "first");
        assert.deepEqual(await daemon.query(`/1.0/storage-pools/${pool}/volumes/custom/then/snapshots`), []);
        await volume("delete", pool, "then");
      }
    });
  }

  await t.step("a snapshot that is not there; a refresh from one", async () => {
    await daemon.fails(["storage", "volume", "copy", "fast/v/s1", "fast/then"], /Storage volume snapshot not found/);
    await volume("create", "plain", "there");
    await daemon.fails(
      ["storage", "volume", "copy", "fast/v/s0", "plain/there", "--refresh"],
      /Cannot refresh volume "there" from a snapshot/,
    );
    await volume("delete", "plain", "there");
  });

  await daemon.ok("launch", "bb", "c1");
  await daemon.ok("init", "bb", "c2");
  await daemon.ok("profile", "create", "shared");
  await volume("attach-profile", "fast", "v", "shared", "data", "/mnt/shared");
  await daemon.ok("config", "device", "add", "c2", "part", "disk", "pool=fast", "source=v/data", "path=/mnt/part");
  await volume("attach", "fast", "v", "c2", "whole", "/mnt/whole");
  const devices = async () => {
    const ask = async (path: string) =>
      Object.entries(((await daemon.query(path)) as { devices: Record<string, Record<string, string>> }).devices)
        .map(([name, { pool, source }]) => `${name} ${pool}/${source}`).sort();
    return [await ask("/1.0/instances/c2"), await ask("/1.0/profiles/shared")];
  };

  await t.step("what is stopped and profiles follow a rename and a move", async () => {
    await daemon.lxc("storage", "volume", "rename", "fast", "v", "w");
    assert.deepEqual(await devices(), [["part fast/w/data", "whole fast/w"], ["data fast/w"]]);
    // Not by the real client: for a move to another pool it copies and then deletes, and the deletion is refused.
    await volume("move", "fast/w", "plain/x");
    assert.deepEqual(await devices(), [["part plain/x/data", "whole plain/x"], ["data plain/x"]]);
    const shown = await daemon.query("/1.0/storage-pools/plain/volumes/custom/x") as { used_by: string[] };
    assert.deepEqual(shown.used_by, ["/1.0/instances/c2", "/1.0/profiles/shared"]);
    await daemon.ok("start", "c2");
    assert.equal(await daemon.ok("exec", "c2", "--", "cat", "/mnt/part"), "as it became");
    assert.equal(await daemon.ok("exec", "c2", "--", "cat", "/mnt/whole/data"), "as it became");
  });

  await t.step("what runs cannot follow", async () => {
    const before = await devices();
    const words = /Volume is still in use by running instances/;
    await daemon.fails(["storage", "volume", "rename", "plain", "x", "y"], words);
    await daemon.fails(["storage", "volume", "move", "plain/x", "fast/x"], words);
    await daemon.ok("stop", "-f", "c2");
    await daemon.ok("profile", "add", "c1", "shared");
    await daemon.fails(["storage", "volume", "rename", "plain", "x", "y"], words);
    assert.deepEqual(await devices(), before);
    await daemon.ok("profile", "remove", "c1", "shared");
    await volume("rename", "plain", "x", "y");
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
    await daemon.ok("delete", "-f", "c1", "c2");
    await daemon.ok("profile", "delete", "shared");
  });
});
