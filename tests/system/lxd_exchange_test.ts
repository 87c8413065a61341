/** Backups go to a real LXD and come back. Needs one that runs on this host: $LXD_PEER_DIR is its directory, with the pools `p-dir` and
 * `p-btrfs`. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { succeed } from "../support/command.ts";
import { Daemon } from "../support/daemon.ts";
import { attributes, furnishTree, tree } from "../support/tree.ts";

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
    /** @returns What a volume and its snapshots hold. */
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
  },
});
