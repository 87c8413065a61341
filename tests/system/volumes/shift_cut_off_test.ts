/** A shift that is interrupted by a real kill continues where it was. */
import assert from "node:assert/strict";
import { chmodSync, chownSync, linkSync, lstatSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { completed } from "../../../drivers/host/ids/id_shift.ts";
import { parseIdmap } from "../../../server/ids/idmaps.ts";
import { command } from "../../support/command.ts";
import { Daemon, executable } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { OperationEvents } from "../../support/progress.ts";
import { RawClient } from "../../support/raw.ts";

const directories = 150, filesEach = 200, rareEach = 3;
/** An owner outside of maps with 65536 ids. */
const rare = 90_000;

Deno.test("a change of owners that is killed in its middle ends as one map or the other", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("launch", "bb", "c1");
  await daemon.ok("launch", "bb", "c2", "-c", "security.idmap.isolated=true");
  await daemon.ok("storage", "volume", "create", "fast", "many");
  const root = join(daemon.directory, "storage-pools/fast/custom/default_many");
  for (let directory = 0; directory < directories; directory++) {
    const path = join(root, `d${directory}`);
    mkdirSync(path);
    for (let file = 0; file < filesEach; file++) writeFileSync(join(path, `f${file}`), "");
    // Owners outside of the one map, which could be mistaken for others.
    for (let file = 2; file < 2 + rareEach; file++) chownSync(join(path, `f${file}`), rare, rare);
    linkSync(join(path, "f0"), join(root, `link${directory}`));
    chmodSync(join(path, "f1"), 0o6755);
  }
  const paths = (readdirSync(root, { recursive: true }) as string[]).map((name) => join(root, name));
  const ownersNow = () =>
    new Map([...Map.groupBy(paths, (path) => lstatSync(path).uid)].map(([id, { length }]) => [id, length]));
  /** Owners by the map that is recorded for the volume, whichever it is. */
  const ownersSaid = async () => {
    const { config } = await daemon.query("/1.0/storage-pools/fast/volumes/custom/many") as {
      config: Record<string, string>;
    };
    const lines = completed(parseIdmap(config["volatile.idmap.last"])?.uid);
    const onDisk = (id: number) => {
      const line = lines.find(({ container, count }) => container <= id && id < container + count) ??
        assert.fail(`no ${id}`);
      return line.host + id - line.container;
    };
    return new Map([[onDisk(0), paths.length - directories * rareEach], [onDisk(rare), directories * rareEach]]);
  };
  const sorted = (owners: Map<number, number>) => [...owners].sort(([a], [b]) => a - b);
  /** Few files, checked often, so that the kill comes soon after the first change: usual files, or in some rounds the files that are changed
   * first. */
  const watched = [join(root, "d0/f0"), paths.at(-1)!];
  const watchedFirst = ["d0/f2", `d${directories - 1}/f2`].map((name) => join(root, name));
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
      await daemon.ok("storage", "volume", "detach", "fast", "many", from);
      const before = ownersNow();
      const look = round % 3 === 2 ? watchedFirst : watched;
      const old = look.map((path) => lstatSync(path).uid);
      const isUnderWay = () => look.some((path, index) => lstatSync(path).uid !== old[index]);
      const attaching = command([executable, ...attach(to)], { env: daemon.environment });
      let isOver = false;
      void attaching.finally(() => isOver = true);
      while (!isUnderWay() && !isOver) await new Promise((resolve) => setImmediate(resolve));
      await daemon.kill();
      assert.notEqual((await attaching).code, 0);
      const atKill = ownersNow();
      if (atKill.size > 2) cut++;
      await daemon.up();
      assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
      assert.deepEqual(sorted(ownersNow()), sorted(await ownersSaid()));
      assert.notDeepEqual(sorted(ownersNow()), sorted(before), "it goes on");
      await daemon.ok(...attach(to));
      assert.deepEqual(sorted(ownersNow()), sorted(await ownersSaid()));
      assert.equal(lstatSync(join(root, "d0/f0")).uid, await base(to));
      assert.equal(lstatSync(join(root, "d3/f1")).mode & 0o7777, 0o6755);
      assert.equal(lstatSync(join(root, "link7")).nlink, 2);
      assert.equal(await daemon.ok("exec", to, "--", "stat", "-c", "%u %a", "/mnt/d3/f1"), "0 6755");
    });
  }
  await t.step("its first walk counts the files for those that follow, which have a percentage", async () => {
    await daemon.ok("storage", "volume", "detach", "fast", "many", "c1");
    const raw = new RawClient(daemon.directory);
    using events = await OperationEvents.open(daemon.directory);
    const data = { type: "disk", pool: "fast", source: "many", path: "/mnt" };
    const { body } = await raw.ask("PATCH", "/1.0/instances/c2", { devices: { data } });
    const { id } = body.metadata;
    const { metadata } = await events.first(id, ({ metadata }) => Boolean(metadata?.container_progress));
    assert.match(String(metadata?.container_progress), /^Remapping storage volume: \d+ files \(\d+ files\/s\)$/);
    const later = await events.first(id, ({ metadata }) => /% of /.test(String(metadata?.container_progress)));
    const text = String(later.metadata?.container_progress);
    const [, percent, of] = /: (\d+)% of (\d+) files \(\d+ files\/s(?:, \d+s left)?\)$/.exec(text) ?? assert.fail(text);
    assert.ok(Number(percent) >= 33 && Number(percent) <= 99, text);
    assert.equal(Number(of), paths.length + 1, "with the volume's top");
    assert.equal((await raw.wait(id)).status, "Success");
  });
  await t.step("some were cut off in their middle", () => assert.ok(cut > 0));
});
