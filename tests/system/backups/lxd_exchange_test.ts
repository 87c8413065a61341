/** Exchanges backups with a real LXD on this host: $LXD_PEER_DIR is its directory, with the pools `p-dir` and `p-btrfs`. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { command, succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { attributes, furnishTree, tree } from "../../support/tree.ts";

const peer = process.env.LXD_PEER_DIR;
const name = `lido-${process.pid}`;

Deno.test({
  name: "backups go to a real LXD and come back, in every compression and in btrfs's own format" +
    (peer === undefined ? ": not on this host: $LXD_PEER_DIR names no LXD that runs" : ""),
  ignore: peer === undefined,
  fn: async (t) => {
    await using daemon = await Daemon.start();
    const lxd = (...argv: string[]) => succeed(["lxc", ...argv], { env: { LXD_DIR: peer!, HOME: daemon.directory } });
    await daemon.ok("storage", "create", "p-dir", "dir");
    await daemon.ok("storage", "create", "p-btrfs", "btrfs", "size=512MiB");
    const place = (directory: string, pool: string, kind = "custom") =>
      join(directory, "storage-pools", pool, kind, `default_${name}`);
    const file = (what: string) => join(daemon.directory, what);
    /** @returns Content of a volume and its snapshots. */
    const content = async (directory: string, pool: string) => {
      const roots = [
        place(directory, pool),
        ...["s0", "s1"].map((one) => join(place(directory, pool, "custom-snapshots"), one)),
      ];
      return [roots.map(tree), await Promise.all(roots.map(attributes))];
    };

    for (const pool of ["p-dir", "p-btrfs"]) {
      const root = place(daemon.directory, pool);
      await daemon.ok("storage", "volume", "create", pool, name, "user.note=kept");
      await furnishTree(root);
      await daemon.ok("storage", "volume", "snapshot", pool, name, "s0");
      writeFileSync(join(root, "file"), "changed");
      await daemon.ok("storage", "volume", "snapshot", pool, name, "s1");
      writeFileSync(join(root, "later"), "after the snapshots");
      const expected = await content(daemon.directory, pool);
      const ways = ["none", "gzip", "bzip2", "xz", "zstd"].map((algorithm) => ["--compression", algorithm]);
      if (pool === "p-btrfs") ways.push(["--optimized-storage"], ["--optimized-storage", "--compression", "xz"]);
      for (const way of ways) {
        await t.step(`${pool}, ${way.join(" ")}`, async () => {
          const [there, back] = [file("there"), file("back")];
          await succeed(["rm", "-f", there, back]);
          await daemon.ok("storage", "volume", "export", pool, name, there, ...way);
          await lxd("storage", "volume", "import", pool, there, name);
          try {
            assert.deepEqual(await content(peer!, pool), expected);
            assert.equal(await lxd("storage", "volume", "get", pool, name, "user.note"), "kept");
            await lxd("storage", "volume", "export", pool, name, back, ...way);
          } finally {
            await lxd("storage", "volume", "delete", pool, name);
          }
          await daemon.ok("storage", "volume", "delete", pool, name);
          await daemon.ok("storage", "volume", "import", pool, back, name);
          assert.deepEqual(await content(daemon.directory, pool), expected);
          assert.equal(await daemon.ok("storage", "volume", "get", pool, name, "user.note"), "kept");
        });
      }
    }

    await t.step("owners that containers gave are those that containers see there, from 65536 on, too", async () => {
      const image = await busyboxImage();
      const use = "cd /data; stat -c '%n %u %g' [0-9]*";
      const make = "cd /data; for id in 0 1000 65536 200000 9999999; do touch $id; chown $id:$id $id; done";
      const seen = [0, 1000, 200_000, 65_536, 9_999_999].map((id) => `${id} ${id} ${id}`).join("\n");
      await daemon.ok("image", "import", image, "--alias", name);
      await daemon.ok("launch", name, name, "-s", "p-dir");
      await lxd("image", "import", image, "--alias", name);
      try {
        await lxd("launch", name, name, "-s", "p-dir", "-q");
        await lxd("storage", "volume", "create", "p-dir", name);
        await lxd("storage", "volume", "attach", "p-dir", name, name, "data", "/data");
        await lxd("exec", name, "--", "sh", "-c", make);
        assert.equal(await lxd("exec", name, "--", "sh", "-c", use), seen);
        await lxd("storage", "volume", "detach", "p-dir", name, name);
        const [there, back] = [file("owners-there"), file("owners-back")];
        await lxd("storage", "volume", "export", "p-dir", name, there);
        for (const pool of ["p-dir", "p-btrfs"]) {
          await daemon.ok("storage", "volume", "import", pool, there, "owners");
          await daemon.ok("storage", "volume", "attach", pool, "owners", name, "data", "/data");
          assert.equal(await daemon.ok("exec", name, "--", "sh", "-c", use), seen);
          await daemon.ok("storage", "volume", "detach", pool, "owners", name);
        }
        await daemon.ok("storage", "volume", "export", "p-btrfs", "owners", back);
        await lxd("storage", "volume", "delete", "p-dir", name);
        await lxd("storage", "volume", "import", "p-dir", back, name);
        await lxd("storage", "volume", "attach", "p-dir", name, name, "data", "/data");
        assert.equal(await lxd("exec", name, "--", "sh", "-c", use), seen);
      } finally {
        for (
          const argv of [["delete", "-f", name], ["storage", "volume", "delete", "p-dir", name], [
            "image",
            "delete",
            name,
          ]]
        ) await command(["lxc", ...argv], { env: { LXD_DIR: peer!, HOME: daemon.directory } });
      }
    });
  },
});
