/** Refresh of an existing copy, by the native client and the real one, within a pool and between drivers. */
import assert from "node:assert/strict";
import { chownSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { StoragePool, StorageVolume, StorageVolumeSnapshot } from "../../../api/types.ts";
import { digest } from "../../crash/support.ts";
import { Daemon, fastPool } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { RawClient } from "../../support/raw.ts";
import { withContent } from "../../support/volume_content.ts";

Deno.test("copies brought up to date", async (t) => {
  await using daemon = await Daemon.start();
  const volume = (...words: string[]) => daemon.ok("storage", "volume", ...words);
  for (const [name, words] of [["fast", fastPool], ["other", fastPool], ["plain", ["dir"]]] as const) {
    await daemon.ok("storage", "create", name, ...words);
  }
  const content = async <T>(pool: string, name: string, use: (path: string) => T, snapshot?: string) => {
    const of = { type: "custom", name: `default_${name}`, ...(snapshot === undefined ? {} : { snapshot }) };
    const seen = await daemon.query(`/1.0/storage-pools/${pool}`) as StoragePool;
    return await withContent(daemon.directory, seen, of, use, snapshot === undefined);
  };
  const snapshots = async (pool: string, name: string) => {
    const path = `/1.0/storage-pools/${pool}/volumes/custom/${name}/snapshots?recursion=1`;
    return (await daemon.query(path) as StorageVolumeSnapshot[]).map((one) => one.name).sort();
  };
  const show = (pool: string, name: string) =>
    daemon.query(`/1.0/storage-pools/${pool}/volumes/custom/${name}`) as Promise<StorageVolume>;
  const assertSame = async (from: string, to: string, names: readonly string[]) => {
    assert.deepEqual(await snapshots(to, "copy"), names);
    assert.equal(await content(to, "copy", digest), await content(from, "work", digest));
    for (const one of names) {
      assert.equal(await content(to, "copy", digest, one), await content(from, "work", digest, one), one);
    }
  };
  const clients = {
    lido: (...words: string[]) => volume("copy", "--refresh", ...words),
    lxc: (...words: string[]) => daemon.lxc("storage", "volume", "copy", "--refresh", ...words),
  };

  for (
    const [from, to, client] of [
      ["plain", "plain", "lxc"],
      ["fast", "plain", "lido"],
      ["plain", "fast", "lxc"],
      ["fast", "other", "lido"],
      ["fast", "fast", "lxc"],
    ] as const
  ) {
    await t.step(`from ${from} to ${to}, by ${client}`, async () => {
      await volume("create", from, "work");
      await content(from, "work", (path) => {
        mkdirSync(join(path, "directory"));
        for (const name of ["changed", "deleted", "kept"]) writeFileSync(join(path, "directory", name), `${name}\n`);
      });
      for (const name of ["both", "first"]) await volume("snapshot", from, "work", name);
      assert.match(await clients[client](`${from}/work`, `${to}/copy`), /Storage volume copied successfully!/);
      await assertSame(from, to, ["both", "first"]);

      const limited = (await daemon.query(`/1.0/storage-pools/${to}`) as StoragePool).facets.includes("quota");
      if (limited) await volume("set", to, "copy", "size=64MiB");
      await volume("set", to, "copy", "user.mine=yes");
      await volume("snapshot", to, "copy", "local");
      await content(to, "copy", (path) => writeFileSync(join(path, "local"), "only here"));
      await content(from, "work", (path) => {
        rmSync(join(path, "directory/deleted"));
        writeFileSync(join(path, "directory/changed"), "as it became\n");
        writeFileSync(join(path, "added"), "new\n", { mode: 0o640 });
        chownSync(join(path, "added"), 1234, 5678);
      });
      await volume("delete", from, "work/first");
      await volume("snapshot", from, "work", "later");
      await content(from, "work", (path) => writeFileSync(join(path, "last"), "last\n"));
      const before = await show(to, "copy");
      await clients[client](`${from}/work`, `${to}/copy`);
      await assertSame(from, to, ["both", "later"]);
      assert.deepEqual((await show(to, "copy")).config, before.config);
      assert.equal((await show(to, "copy")).config["user.mine"], "yes");
      if (limited) {
        const { usage } = await daemon.query(`/1.0/storage-pools/${to}/volumes/custom/copy/state`) as {
          usage: { total: number };
        };
        assert.equal(usage.total, 64 * 1024 * 1024, "the limit is not the copy's own");
        assert.equal((await show(to, "copy")).config.size, "64MiB");
      }
      // Refresh again without a change; afterwards the copy can be restored to its snapshots.
      await clients[client](`${from}/work`, `${to}/copy`);
      await assertSame(from, to, ["both", "later"]);
      await volume("restore", to, "copy", "later");
      assert.equal(await content(to, "copy", digest), await content(from, "work", digest, "later"));

      // Without snapshots: the copy's own stay as they are.
      await volume("snapshot", to, "copy", "mine");
      const mine = await content(to, "copy", digest, "mine");
      await content(from, "work", (path) => writeFileSync(join(path, "last"), "even later\n"));
      await clients[client](`${from}/work`, `${to}/copy`, "--volume-only");
      assert.equal(await content(to, "copy", digest), await content(from, "work", digest));
      assert.deepEqual(await snapshots(to, "copy"), ["both", "later", "mine"]);
      assert.equal(await content(to, "copy", digest, "mine"), mine);
      await volume("delete", from, "work");
      await volume("delete", to, "copy");
    });
  }

  await t.step("what does not fit, and what is wrong, changes nothing", async () => {
    await volume("create", "plain", "work");
    await content("plain", "work", (path) => writeFileSync(join(path, "big"), new Uint8Array(32 << 20).fill(7)));
    await volume("create", "fast", "copy", "size=16MiB");
    await volume("file", "push", "/etc/hostname", "fast", "copy/was");
    const before = await content("fast", "copy", digest);
    await daemon.fails(
      ["storage", "volume", "copy", "--refresh", "plain/work", "fast/copy"],
      /No space left|quota|Cannot limit/i,
    );
    assert.equal(await content("fast", "copy", digest), before);
    await daemon.fails(["storage", "volume", "copy", "--refresh", "fast/copy", "fast/copy"], /it is its own source/);
    const raw = new RawClient(daemon.directory);
    const source = { type: "copy", pool: "fast", name: "nosuch", refresh: true };
    const { status } = await raw.ask("POST", "/1.0/storage-pools/fast/volumes/custom", { name: "copy", source });
    assert.equal(status, 404);
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  });

  await t.step("a cancelled one leaves the copy as it was", async () => {
    await volume("unset", "fast", "copy", "size");
    // Not sparse, and big enough that the refresh is seen at work.
    await content("plain", "work", (path) => {
      for (let index = 0; index < 40; index++) {
        writeFileSync(join(path, `f${index}`), new Uint8Array(8 << 20).fill(index));
      }
    });
    const before = await content("fast", "copy", digest);
    const raw = new RawClient(daemon.directory);
    const source = { type: "copy", pool: "plain", name: "work", refresh: true };
    const { body } = await raw.ask("POST", "/1.0/storage-pools/fast/volumes/custom", { name: "copy", source });
    await raw.ask("DELETE", `/1.0/operations/${body.metadata.id}`);
    assert.equal((await raw.wait(body.metadata.id)).status, "Cancelled");
    assert.equal(await content("fast", "copy", digest), before);
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  });

  await t.step(
    "refused while a running container has it; done once it has stopped, and the owners are right",
    async () => {
      await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
      await daemon.ok("launch", "bb", "c1", "-s", "fast");
      await volume("create", "fast", "data");
      await volume("attach", "fast", "data", "c1", "/data");
      await daemon.ok("exec", "c1", "--", "sh", "-c", "echo one > /data/f");
      await daemon.fails(
        ["storage", "volume", "copy", "--refresh", "plain/work", "fast/data"],
        /Cannot refresh custom volume used by running instances/,
      );
      await daemon.ok("stop", "-f", "c1");
      await volume("file", "push", "/etc/hostname", "plain", "work/name");
      await volume("copy", "--refresh", "plain/work", "fast/data");
      await daemon.ok("start", "c1");
      assert.match(await daemon.ok("exec", "c1", "--", "stat", "-c", "%u %n", "/data/name"), /^0 \/data\/name/);
      await daemon.ok("delete", "-f", "c1");
    },
  );
});
