/** Directories that are exchanged with symbolic links to the host's while tools walk them: only the volume's own content is copied, snapshotted
 * and exported. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Canary } from "../support/canary.ts";
import { Daemon } from "../support/daemon.ts";
import { Filesystem } from "../support/filesystem.ts";

const rounds = 4;
/** Limit of additional rounds, while every attempt failed on a vanished file; the pause between exchanges grows by a millisecond each round. */
const roundsMax = 40;
const pairCount = 12;

/** Exchanges directories with links to `aim` in a volume's content until it is disposed of. */
async function exchanging(tree: string, aim: string): Promise<AsyncDisposable & { rest(ms: number): void }> {
  const pairs = Array.from({ length: pairCount }, (_, index) => {
    const pair = [join(tree, `d${index}`), join(tree, `e${index}`)] as const;
    mkdirSync(join(pair[0], "etc"), { recursive: true });
    writeFileSync(join(pair[0], "etc/own"), "own\n");
    symlinkSync(aim, pair[1]);
    return pair;
  });
  const memory = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(new URL("../support/exchanging_worker.ts", import.meta.url), { type: "module" });
  const told = () =>
    new Promise<void>((resolve, reject) => {
      worker.onmessage = () => resolve();
      worker.onerror = (event) => reject(new Error(event.message));
    });
  const begun = told();
  worker.postMessage({ pairs, memory });
  await begun;
  return {
    rest: (ms) => void Atomics.store(memory, 1, ms),
    [Symbol.asyncDispose]: async () => {
      const last = told();
      Atomics.store(memory, 0, 1);
      await last;
      worker.terminate();
    },
  };
}

const names = (directory: string) =>
  readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => !entry.isSymbolicLink())
    .map(({ name }) => name);

Deno.test("what is exchanged with a link to the host's meanwhile is not copied", async (t) => {
  await using daemon = await Daemon.start();
  using canary = new Canary();
  await using undo = new AsyncDisposableStack();
  const ext4 = undo.use(await Filesystem.make("ext4", 64)), xfs = undo.use(await Filesystem.make("xfs", 400));
  for (const [pool, { path }] of [["ext4", ext4], ["xfs", xfs]] as const) {
    mkdirSync(join(path, "pool"));
    await daemon.ok("storage", "create", pool, "dir", `source=${join(path, "pool")}`);
  }
  await daemon.ok("storage", "create", "host", "dir");
  await daemon.ok("storage", "create", "btrfs", "btrfs", "size=256MiB");
  const place = (pool: string, kind: string, name: string) => join(daemon.directory, "storage-pools", pool, kind, name);

  for (const pool of ["host", "ext4", "xfs", "btrfs"]) {
    const other = pool === "host" ? "btrfs" : "host";
    await t.step(pool, async () => {
      await daemon.ok("storage", "volume", "create", pool, "v");
      const archive = `${daemon.directory}.tar`;
      const made: string[] = [];
      let round = 0;
      {
        await using race = await exchanging(place(pool, "custom", "default_v"), canary.directory);
        const attempt = async (found: string, ...argv: string[]) => {
          // A tool may fail on a vanished file: then nothing is made.
          if ((await daemon.lido(["storage", "volume", ...argv])).code === 0) made.push(found);
        };
        for (; round < rounds || (made.length === 0 && round < roundsMax); round++) {
          race.rest(Math.max(0, round - rounds));
          await attempt(place(pool, "custom-snapshots", `default_v/s${round}`), "snapshot", pool, "v", `s${round}`);
          await attempt(
            place(other, "custom", `default_c${round}`),
            ...["copy", `${pool}/v`, `${other}/c${round}`, "--volume-only"],
          );
        }
        const { code } = await daemon.lido(
          ["storage", "volume", "export", pool, "v", archive, "--volume-only", "--compression=none"],
        );
        if (code === 0) {
          assert.ok(!readFileSync(archive).includes("a secret of the host"), "the archive has a file of the host");
          rmSync(archive);
        }
      }
      for (const directory of made) {
        const found = new Set(names(directory));
        assert.ok(!found.has("shadow"), `${directory} has a file of the host`);
        assert.ok(found.has("own"), `${directory} has what is in the volume`);
      }
      assert.ok(made.length > 0, "something could be made of it");
      while (round-- > 0) await daemon.lido(["storage", "volume", "delete", other, `c${round}`]);
      await daemon.ok("storage", "volume", "delete", pool, "v");
      canary.check(`copies of a volume in ${pool}`);
    });
  }
  for (const pool of ["ext4", "xfs", "host", "btrfs"]) await daemon.ok("storage", "delete", pool);
});
