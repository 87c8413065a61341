/** Every copying operation reports its progress and can be cancelled without leftovers, on a filesystem that shares no blocks. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Operation } from "../../../api/types.ts";
import { succeed } from "../../support/command.ts";
import { Daemon, executable } from "../../support/daemon.ts";
import { Filesystem } from "../../support/filesystem.ts";
import { busyboxImage } from "../../support/image.ts";
import { cancelled, OperationEvents } from "../../support/progress.ts";
import { RawClient } from "../../support/raw.ts";
import { Terminal } from "../../support/terminal.ts";

const files = 60_000;

Deno.test({
  name: "what copies is seen and cancelled",
  sanitizeOps: false, // node-pty keeps its own threads and handles
  sanitizeResources: false,
  fn: async (t) => {
    await using filesystem = await Filesystem.make("ext4", 9216);
    await using daemon = await Daemon.start();
    const pool = join(filesystem.path, "pool");
    mkdirSync(pool);
    await daemon.ok("storage", "create", "plain", "dir", `source=${pool}`);
    await daemon.ok("storage", "create", "other", "dir");
    await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=plain");
    await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
    const raw = new RawClient(daemon.directory);
    using events = await OperationEvents.open(daemon.directory);
    const cancel = async (...asked: [method: string, path: string, body?: unknown]) => {
      const end = await cancelled(raw, events, ...asked);
      assert.equal(end.status, "Cancelled", JSON.stringify(end));
      assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
    };
    /** Makes many small files: copying them takes time on any disk. */
    const fill = async (directory: string) => {
      mkdirSync(directory);
      await succeed(["bash", "-c", `head -c ${files * 4096} /dev/zero | split -b 4096 -a 5 - ${directory}/`]);
    };
    const isPercent = ({ metadata }: Operation) => /\d% of [\d.]+[MG]iB/.test(String(metadata?.fs_progress));
    /** Cancels the operation when it reports its progress. @returns The metadata with the progress. */
    const cancelAtPercent = async (...asked: [method: string, path: string, body?: unknown]) => {
      const { body } = await raw.ask(...asked);
      const { id } = body.metadata;
      const { metadata } = await events.first(id, isPercent);
      await raw.ask("DELETE", `/1.0/operations/${id}`);
      assert.equal((await raw.wait(id)).status, "Cancelled");
      return metadata;
    };
    /** Waits until nothing runs: a client that does not wait for the end of what it has cancelled may be ahead of the daemon. */
    const isQuiet = async () => {
      const { running = [], cancelling = [] } = await daemon.query("/1.0/operations") as Record<string, string[]>;
      for (const path of [...running, ...cancelling]) await raw.wait(path.split("/").at(-1)!);
    };
    const inTerminal = (...words: string[]) => new Terminal([executable, ...words], { ...daemon.environment });

    await daemon.ok("storage", "volume", "create", "plain", "data");
    const volume = join(pool, "custom/default_data");
    const volumePath = "/1.0/storage-pools/plain/volumes/custom/data";
    const snapshotsOf = (path: string) => daemon.query(`${path}/snapshots`);
    await fill(join(volume, "many"));

    await t.step("a snapshot of a volume", async () => {
      await cancel("POST", `${volumePath}/snapshots`, { name: "s0" });
      assert.deepEqual(await snapshotsOf(volumePath), []);
      using terminal = inTerminal("storage", "volume", "snapshot", "plain", "data", "s0");
      await terminal.sees(/s0: \d+% of [\d.]+[MG]iB \([\d.]+[MG]iB\/s, \d+s left\)/);
      assert.equal(await terminal.ended, 0);
    });

    await t.step("snapshots of a group", async () => {
      await daemon.ok("storage", "volume", "create", "other", "small");
      const volumes = [{ pool: "other", name: "small" }, { pool: "plain", name: "data" }];
      await cancelAtPercent("POST", "/1.0/storage-snapshot-groups", { name: "group", volumes });
      assert.deepEqual(await snapshotsOf("/1.0/storage-pools/other/volumes/custom/small"), []);
      assert.equal((await snapshotsOf(volumePath) as string[]).length, 1);
    });

    await t.step("the restore of a volume: it has what it had", async () => {
      const first = join(volume, "many/aaaaa");
      writeFileSync(first, "changed");
      await cancel("POST", `${volumePath}/snapshots/s0/restore`);
      assert.equal(readFileSync(first, "utf8"), "changed");
      using terminal = inTerminal("storage", "volume", "restore", "plain", "data", "s0");
      await terminal.sees(/data: \d+% of [\d.]+[MG]iB \([\d.]+[MG]iB\/s, \d+s left\)/);
      terminal.type("\x03");
      await terminal.sees(/Error: Operation cancelled/);
      assert.equal(await terminal.ended, 1);
      assert.equal(readFileSync(first, "utf8"), "changed");
      await daemon.lxc("storage", "volume", "restore", "plain", "data", "s0");
      await succeed(["diff", "-r", volume, join(pool, "custom-snapshots/default_data/s0")]);
    });

    await t.step("a copy of a snapshot, and one with snapshots: of what both have", async () => {
      const copy = (source: object) =>
        cancelAtPercent("POST", "/1.0/storage-pools/other/volumes/custom", {
          name: "copy",
          type: "custom",
          source: { type: "copy", pool: "plain", ...source },
        });
      const bytesOf = (text: unknown) => Number(/ of ([\d.]+)MiB/.exec(String(text))?.[1]);
      const one = bytesOf((await copy({ name: "data/s0" }))?.fs_progress);
      const both = bytesOf((await copy({ name: "data" }))?.fs_progress);
      assert.ok(one >= 200 && Math.abs(both - 2 * one) < one / 10, `${one} MiB, then ${both} MiB`);
      assert.deepEqual(await daemon.query("/1.0/storage-pools/other/volumes/custom"), [
        "/1.0/storage-pools/other/volumes/custom/small",
      ]);
    });

    await t.step("a copy that waits for another change of its source", async () => {
      const { body } = await raw.ask("POST", `${volumePath}/snapshots`, { name: "s1" });
      const copy = { name: "copy", type: "custom", source: { type: "copy", pool: "plain", name: "data" } };
      const waiting = (await raw.ask("POST", "/1.0/storage-pools/other/volumes/custom", copy)).body.metadata.id;
      await raw.ask("DELETE", `/1.0/operations/${waiting}`);
      assert.equal((await raw.wait(waiting)).status, "Cancelled");
      const first = (await raw.ask("GET", `/1.0/operations/${body.metadata.id}`)).body.metadata;
      assert.equal(first.status, "Running", "the other goes on");
      await raw.ask("DELETE", `/1.0/operations/${body.metadata.id}`);
      assert.equal((await raw.wait(body.metadata.id)).status, "Cancelled");
    });

    await t.step("an export and an import", async () => {
      const file = join(daemon.directory, "backup"), words = ["storage", "volume"];
      {
        using terminal = inTerminal(...words, "export", "plain", "data", file, "--compression", "none");
        await terminal.sees(/data: \d+% of [\d.]+MiB \([\d.]+[KM]iB\/s, \d+s left\)/);
        terminal.type("\x03");
        await terminal.sees(/Error: Cancelled/);
        assert.equal(await terminal.ended, 1);
        assert.ok(!existsSync(file));
        assert.deepEqual(await daemon.query(`${volumePath}/backups`), []);
      }
      await daemon.ok(...words, "export", "plain", "data", file, "--compression", "none");
      using terminal = inTerminal(...words, "import", "other", file, "imported");
      await terminal.sees(/imported: \d+% of [\d.]+[KM]iB/);
      terminal.type("\x03");
      await terminal.sees(/Error: Cancelled/);
      assert.equal(await terminal.ended, 1);
      await isQuiet();
      assert.equal((await daemon.query("/1.0/storage-pools/other/volumes/custom") as string[]).length, 1);
      assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
      rmSync(file);
    });
    await daemon.ok("storage", "volume", "delete", "plain", "data");

    await daemon.ok("launch", "bb", "c1");
    const root = join(pool, "containers/c1/rootfs");
    await fill(join(root, "root/many"));

    await t.step("a snapshot of a container, which goes on", async () => {
      await cancel("POST", "/1.0/instances/c1/snapshots", { name: "s0" });
      assert.deepEqual(await snapshotsOf("/1.0/instances/c1"), []);
      assert.equal(await daemon.ok("exec", "c1", "echo", "there"), "there");
      using terminal = inTerminal("snapshot", "c1", "s0");
      await terminal.sees(/c1: (\d+% of )?[\d.]+[MG]iB/);
      assert.equal(await terminal.ended, 0);
    });

    await t.step("the restore of a running container: it runs on what it had", async () => {
      await daemon.ok("config", "set", "c1", "user.note", "later");
      writeFileSync(join(root, "root/many/aaaaa"), "changed");
      await cancel("PUT", "/1.0/instances/c1", { restore: "s0" });
      assert.equal(await daemon.ok("exec", "c1", "cat", "/root/many/aaaaa"), "changed");
      assert.equal(await daemon.ok("config", "get", "c1", "user.note"), "later");
      await daemon.ok("restore", "c1", "s0");
      assert.equal(await daemon.ok("exec", "c1", "--", "stat", "-c", "%s", "/root/many/aaaaa"), "4096");
      assert.equal(await daemon.ok("config", "get", "c1", "user.note"), "");
    });

    await t.step("the copy of a container", async () => {
      await daemon.ok("stop", "-f", "c1");
      await cancel("POST", "/1.0/instances", { name: "c2", source: { type: "copy", source: "c1" } });
      using terminal = inTerminal("copy", "c1", "c2", "-s", "other");
      await terminal.sees(/c2: (\d+% of )?[\d.]+[MG]iB/);
      terminal.type("\x03");
      await terminal.sees(/Error: Operation cancelled/);
      assert.equal(await terminal.ended, 1);
      assert.deepEqual(await daemon.query("/1.0/instances"), ["/1.0/instances/c1"]);
      assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
    });
    await daemon.ok("delete", "c1");

    await t.step("the unpacking of an image", async () => {
      const made = join(daemon.directory, "big-image");
      await succeed(["bash", "-c", `mkdir -p ${made}/rootfs && truncate -s 2G ${made}/rootfs/zeros`]);
      writeFileSync(join(made, "metadata.yaml"), "architecture: x86_64\ncreation_date: 1700000000\n");
      await succeed(["tar", "--zstd", "-C", made, "-cf", `${made}.tar.zst`, "metadata.yaml", "rootfs"]);
      await daemon.ok("image", "import", `${made}.tar.zst`, "--alias", "big");
      rmSync(made, { recursive: true });
      rmSync(`${made}.tar.zst`);
      await cancel("POST", "/1.0/instances", { name: "c3", source: { type: "image", alias: "big" } });
      using terminal = inTerminal("init", "big", "c3");
      await terminal.sees(/Unpacking image: \d+% of [\d.]+KiB/);
      terminal.type("\x03");
      await terminal.sees(/Error: Operation cancelled/);
      assert.equal(await terminal.ended, 1);
      using real = new Terminal(["lxc", "init", "big", "c3"], { ...daemon.environment, HOME: daemon.directory });
      await real.sees(/Unpacking image: \d+% of [\d.]+KiB/);
      real.type("\x03");
      await real.sees(/Error: /);
      assert.equal(await real.ended, 1);
      await isQuiet();
      assert.deepEqual(await daemon.query("/1.0/instances"), []);
      const images = await daemon.query("/1.0/storage-pools/plain/volumes/image") as string[];
      assert.equal(images.length, 1, "only busybox's");
      assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
    });

    await t.step("a cancel that comes too late is refused", async () => {
      const { body } = await raw.ask("POST", "/1.0/instances", {
        name: "c4",
        start: true,
        source: { type: "image", alias: "bb" },
      });
      const { id } = body.metadata;
      // The instance is made, and is being started.
      await events.first(id, ({ may_cancel }) => !may_cancel);
      const { body: answer } = await raw.ask("DELETE", `/1.0/operations/${id}`);
      assert.match(answer.error, /This operation can't be cancelled/);
      assert.equal((await raw.wait(id)).status, "Success");
      assert.equal(await daemon.ok("list", "c4", "-f", "csv", "-c", "s"), "RUNNING");
    });

    await t.step("the killed tools are waited for", () => daemon.noZombies());
  },
});
