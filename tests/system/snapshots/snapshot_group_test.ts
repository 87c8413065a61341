/** Snapshots of several volumes at one moment, on pools of two drivers, while a container writes to all of them. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { RawClient } from "../../support/raw.ts";

Deno.test("a group of snapshots is of one moment, and all or none", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("launch", "bb", "c1");
  const volumes = [["fast", "a"], ["plain", "b"], ["fast", "c"]] as const;
  for (const [pool, name] of volumes) {
    await daemon.ok("storage", "volume", "create", pool, name);
    await daemon.ok("storage", "volume", "attach", pool, name, "c1", `/mnt/${name}`);
  }
  const lines = (snapshot: string) =>
    volumes.map(([pool, name]) => {
      const path = join(
        daemon.directory,
        "storage-pools",
        pool,
        "custom-snapshots",
        `default_${name}`,
        snapshot,
        "log",
      );
      return readFileSync(path, "utf8").split("\n").length;
    });
  const writer = "i=0; while :; do i=$((i+1)); for v in a b c; do echo $i >> /mnt/$v/log; done; done";
  await daemon.ok("exec", "c1", "--", "sh", "-c", `sh -c '${writer}' >/dev/null 2>&1 &`);

  await t.step("each volume has what was written before, none what was written after", async () => {
    await new RawClient(daemon.directory).ask("PATCH", "/1.0/storage-pools/plain/volumes/custom/b", {
      description: "the log",
    });
    for (let round = 0; round < 5; round++) {
      await daemon.ok("storage", "volume", "snapshot-group", `g${round}`, "fast/a", "plain/b", "fast/c");
      const [a, b, c] = lines(`g${round}`);
      assert.ok(a! >= b! && b! >= c! && a! - c! <= 1, `${a} ${b} ${c}`);
    }
    const [first] = lines("g0"), [last] = lines("g4");
    assert.ok(last! > first!, "the container went on in between");
    assert.equal((await daemon.query("/1.0/instances/c1") as { status: string }).status, "Running");
    assert.match(
      await daemon.lxc("storage", "volume", "show", "plain", "b/g0"),
      /description: the log\n(.*\n)*name: g0/,
    );
  });

  await t.step("the operation tells how", async () => {
    const raw = new RawClient(daemon.directory);
    const named = volumes.map(([pool, name]) => ({ pool, name }));
    const { body } = await raw.ask("POST", "/1.0/storage-snapshot-groups", { name: "told", volumes: named });
    const operation = await raw.wait(body.metadata.id);
    assert.equal(operation.status_code, 200);
    assert.equal(operation.metadata.moment, "the containers that have the volumes stand still: c1");
  });

  await t.step("one that cannot be made: none is made", async () => {
    await daemon.ok("storage", "volume", "snapshot", "fast", "c", "taken");
    const group = (...words: string[]) => ["storage", "volume", "snapshot-group", ...words];
    await daemon.fails(group("taken", "fast/a", "fast/c"), /Snapshot "taken" already in use/);
    await daemon.fails(group("new", "fast/a", "fast/none"), /Storage pool volume not found/);
    await daemon.fails(group("new", "fast/a", "fast/a"), /Volume "fast\/a" is named twice/);
    await daemon.fails(group("a/b", "fast/a"), /snapshot/i);
    await daemon.fails(group("new"), /Missing volumes/);
    const found = await daemon.query("/1.0/storage-pools/fast/volumes/custom/a/snapshots") as string[];
    assert.deepEqual(found.filter((path) => /taken|new/.test(path)), []);
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  });
});
