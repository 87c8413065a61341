/** A change of owners that is cut off in its middle, by a real kill, goes on from there. */
import assert from "node:assert/strict";
import { chmodSync, linkSync, lstatSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { command } from "../support/command.ts";
import { Daemon, executable } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";

const directories = 150, filesEach = 200;

Deno.test("a change of owners that is killed in its middle ends as one map or the other", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  for (const name of ["c1", "c2"]) await daemon.ok("launch", "bb", name, "-c", "security.idmap.isolated=true");
  await daemon.ok("storage", "volume", "create", "fast", "many");
  const root = join(daemon.directory, "storage-pools/fast/custom/default_many");
  for (let directory = 0; directory < directories; directory++) {
    const path = join(root, `d${directory}`);
    mkdirSync(path);
    for (let file = 0; file < filesEach; file++) writeFileSync(join(path, `f${file}`), "");
    linkSync(join(path, "f0"), join(root, `link${directory}`));
    chmodSync(join(path, "f1"), 0o6755);
  }
  const paths = (readdirSync(root, { recursive: true }) as string[]).map((name) => join(root, name));
  const ownersNow = () => Map.groupBy(paths, (path) => lstatSync(path).uid);
  /** Cheap, so that the kill comes soon after the first files have changed. */
  const isUnderWay = (old: number) =>
    lstatSync(join(root, "d0/f0")).uid !== old || lstatSync(paths.at(-1)!).uid !== old;
  const base = async (instance: string): Promise<number> => {
    const { config } = await daemon.query(`/1.0/instances/${instance}`) as { config: Record<string, string> };
    return JSON.parse(config["volatile.idmap.current"]!)[0].Hostid;
  };
  const attach = (instance: string) => ["storage", "volume", "attach", "fast", "many", instance, "data", "/mnt"];
  await daemon.ok(...attach("c1"));
  let cut = 0;

  for (let round = 0; round < 6; round++) {
    const [from, to] = round % 2 === 0 ? ["c1", "c2"] as const : ["c2", "c1"] as const;
    await t.step(`from the map of ${from} to that of ${to}`, async () => {
      const old = await base(from);
      await daemon.ok("storage", "volume", "detach", "fast", "many", from);
      const attaching = command([executable, ...attach(to)], { env: daemon.environment });
      let isOver = false;
      void attaching.finally(() => isOver = true);
      while (!isUnderWay(old) && !isOver) await new Promise((resolve) => setImmediate(resolve));
      await daemon.kill();
      assert.notEqual((await attaching).code, 0);
      const atKill = ownersNow();
      if (atKill.size > 1) cut++;
      await daemon.up();
      assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
      const after = ownersNow();
      assert.equal(after.size, 1, JSON.stringify([...after].map(([uid, { length }]) => [uid, length])));
      await daemon.ok(...attach(to));
      assert.deepEqual([...ownersNow().keys()], [await base(to)]);
      assert.equal(lstatSync(join(root, "d3/f1")).mode & 0o7777, 0o6755);
      assert.equal(lstatSync(join(root, "link7")).nlink, 2);
      assert.equal(await daemon.ok("exec", to, "--", "stat", "-c", "%u %a", "/mnt/d3/f1"), "0 6755");
    });
  }
  await t.step("some were cut off in their middle", () => assert.ok(cut > 0));
});
