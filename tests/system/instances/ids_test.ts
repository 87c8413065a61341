/** The ids of containers on every kind of pool: the shared map, isolated ranges, the host's ids, and upgrades from an earlier version's maps. */
import assert from "node:assert/strict";
import { chownSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { readSubIds } from "../../../drivers/host/mounts/idmap.ts";
import { sharedRanges } from "../../../server/ids/idmaps.ts";
import { succeed } from "../../support/command.ts";
import { Daemon, executable } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { fallbackPlace, hasIdmappedMounts, makePool, sharingPlaces } from "../../support/sharing_places.ts";
import { type SeenPool, withContent } from "../../support/volume_content.ts";

const shared = sharedRanges(await readSubIds()).uid;
const { start } = shared;
/** A container id outside of maps with 65536 ids, and less than the host ids of any map. */
const rare = 70_000;
/** A container id that is also a host id of the shared map. */
const ambiguous = start + 100_000;

// The filesystem beneath a `dir` pool does not matter here: one is enough.
for (const place of [...sharingPlaces.filter(({ name }) => name !== "dir on xfs"), fallbackPlace]) {
  Deno.test(`ids on ${place.name}`, async (t) => {
    await using stack = new AsyncDisposableStack();
    const daemon = await Daemon.start();
    // Removed after the daemon.
    const beneath = stack.use(new AsyncDisposableStack());
    stack.use(daemon);
    beneath.use(await makePool(daemon, place));
    const isIdmapped = hasIdmappedMounts(place);
    await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=pool");
    await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
    const sh = (name: string, script: string) => daemon.ok("exec", name, "--", "sh", "-c", script);
    const config = async (name: string) =>
      (await daemon.query(`/1.0/instances/${name}`) as { config: Record<string, string> }).config;
    const mapOf = async (name: string) => (await sh(name, "cat /proc/self/uid_map")).trim().split(/\s+/).map(Number);
    const within = async <T>(type: "containers" | "custom", name: string, use: (path: string) => T): Promise<T> => {
      const pool = await daemon.query("/1.0/storage-pools/pool") as SeenPool;
      return await withContent(daemon.directory, pool, { type, name }, use, true);
    };

    await t.step(
      "the shared map is all of root's range, and an owner is kept by restart, export and import",
      async () => {
        await daemon.ok("launch", "bb", "c1");
        assert.deepEqual(await mapOf("c1"), [0, start, shared.count]);
        await daemon.ok("storage", "volume", "create", "pool", "v");
        await daemon.ok("storage", "volume", "attach", "pool", "v", "c1", "data", "/data");
        const owners = [rare, ambiguous, shared.count - 1];
        for (const id of owners) {
          await sh("c1", `for d in /root /data; do touch $d/${id}; chown ${id}:${id} $d/${id}; done`);
        }
        const look = (...directories: string[]) =>
          sh(
            "c1",
            directories.map((path) => `cd ${path}; stat -c '%n %u %g' [0-9]*`).join(";"),
          );
        const seen = owners.map((id) => `${id} ${id} ${id}`).sort().join("\n");
        assert.equal(await look("/root", "/data"), `${seen}\n${seen}`);
        await assert.rejects(sh("c1", `touch /root/f; chown ${shared.count} /root/f`), /Invalid argument/);
        await daemon.ok("restart", "-f", "c1");
        assert.equal(await look("/root", "/data"), `${seen}\n${seen}`);
        await daemon.ok("storage", "volume", "detach", "pool", "v", "c1");
        const backup = join(daemon.directory, "v.tar");
        await daemon.ok("storage", "volume", "export", "pool", "v", backup, "--compression", "none");
        await daemon.ok("storage", "volume", "import", "pool", backup, "w");
        await daemon.ok("storage", "volume", "attach", "pool", "w", "c1", "data", "/data");
        assert.equal(await look("/data"), seen);
        await daemon.ok("storage", "volume", "detach", "pool", "w", "c1");
      },
    );

    await t.step("isolated ranges are next to each other; size and base are chosen", async () => {
      const isolated = ["-c", "security.idmap.isolated=true"];
      await daemon.ok("launch", "bb", "i1", ...isolated);
      await daemon.ok("launch", "bb", "i2", ...isolated, "-c", "security.idmap.size=200000");
      const [, base] = await mapOf("i1");
      assert.deepEqual(await mapOf("i1"), [0, base, 65536]);
      assert.deepEqual(await mapOf("i2"), [0, base! + 65536, 200_000]);
      const chosen = base! + 400_000;
      await daemon.ok("launch", "bb", "i3", ...isolated, "-c", `security.idmap.base=${chosen}`);
      assert.deepEqual(await mapOf("i3"), [0, chosen, 65536]);
      for (const [name, code] of [["i1", 1], ["i2", 0]] as const) {
        assert.equal((await daemon.lido(["exec", name, "--", "chown", String(rare), "/root"])).code, code);
      }
      for (const name of ["i2", "i3"]) await daemon.ok("delete", "-f", name);
    });

    await t.step("a map without an owner keeps it, or is refused where owners are changed on disk", async () => {
      await daemon.ok("stop", "-f", "c1");
      await daemon.ok("config", "set", "c1", "security.idmap.isolated=true");
      const { "volatile.idmap.base": base } = await config("c1");
      const taken = Number(base) + 5;
      await within("containers", "c1", (path) => {
        writeFileSync(join(path, "rootfs/root/taken"), "");
        chownSync(join(path, "rootfs/root/taken"), isIdmapped ? taken : start + taken, 0);
      });
      if (!isIdmapped) {
        await daemon.fails(
          ["start", "c1"],
          new RegExp(
            `Failed to handle idmapped storage: Cannot change the owner of "taken": owner ${taken} has no place`,
          ),
        );
        await within("containers", "c1", (path) => {
          assert.equal(statSync(join(path, "rootfs/root/taken")).uid, start + taken);
          assert.equal(statSync(join(path, "rootfs/root", String(rare))).uid, start + rare);
          chownSync(join(path, "rootfs/root/taken"), start, start);
        });
      }
      await daemon.ok("start", "c1");
      assert.equal(await sh("c1", `stat -c %u /root/${rare} /root/${ambiguous}`), "65534\n65534");
      await daemon.ok("config", "unset", "c1", "security.idmap.isolated");
      await daemon.ok("restart", "-f", "c1");
      assert.equal(await sh("c1", `stat -c %u /root/${rare} /root/${ambiguous}`), `${rare}\n${ambiguous}`);
    });

    await t.step("raw.idmap maps a user of the host, whose directory is then the container's user's", async () => {
      const directory = `${daemon.directory}.home`;
      mkdirSync(directory);
      try {
        chownSync(directory, 1000, 1000);
        await daemon.ok("config", "set", "c1", "raw.idmap=both 1000 500");
        await daemon.ok("config", "device", "add", "c1", "home", "disk", `source=${directory}`, "path=/home/user");
        await daemon.ok("restart", "-f", "c1");
        assert.equal(await sh("c1", "stat -c '%u %g' /home/user"), "500 500");
        await daemon.ok("exec", "c1", "--user", "500", "--group", "500", "--", "touch", "/home/user/f");
        const { uid, gid } = statSync(join(directory, "f"));
        assert.deepEqual([uid, gid], [1000, 1000]);
        assert.equal(await sh("c1", `stat -c %u /root /root/${rare} /bin/busybox`), `0\n${rare}\n0`);
        await daemon.fails(
          ["config", "set", "c1", `raw.idmap=both ${start + 5} 5`],
          /Host id is in the range of subids/,
        );
        await daemon.ok("config", "device", "remove", "c1", "home");
        await daemon.ok("config", "unset", "c1", "raw.idmap");
        await daemon.ok("restart", "-f", "c1");
      } finally {
        await succeed(["rm", "-rf", directory]);
      }
    });

    await t.step(
      "a container that an earlier version started keeps its map till its next start, and shares volumes",
      async () => {
        // Make the earlier version's map by these keys, and delete the keys from the database afterwards.
        const keys = ["security.idmap.isolated=true", `security.idmap.base=${start}`, "security.idmap.size=65536"];
        await daemon.ok(
          "init",
          "bb",
          "old",
          ...keys.flatMap((key) => ["-c", key]),
          "-c",
          "security.protection.shift=true",
        );
        await daemon.ok("init", "bb", "stopped", ...keys.flatMap((key) => ["-c", key]));
        // An owner that the image has and the map does not: it stays unchanged on disk.
        await within("containers", "old", (path) => {
          writeFileSync(join(path, "rootfs/root/rare"), "");
          chownSync(join(path, "rootfs/root/rare"), rare, rare);
        });
        if (!isIdmapped) {
          await daemon.fails(["start", "old"], /Container is protected against filesystem shifting/);
          await daemon.ok("config", "set", "old", "security.protection.shift=false");
        }
        await daemon.ok("storage", "volume", "create", "pool", "both");
        for (const name of ["old", "stopped"]) {
          await daemon.ok("storage", "volume", "attach", "pool", "both", name, "data", "/data");
          await daemon.ok("start", name);
          await sh(name, `touch /root/f /data/${name}; chown 1000 /root/f /data/${name}`);
        }
        await daemon.ok("stop", "-f", "stopped");
        await daemon.terminate();
        const database = new DatabaseSync(join(daemon.directory, "lido.db"));
        const remove = keys.map((key) => `'$."${key.split("=")[0]}"'`).join(", ");
        database.exec(`UPDATE instances SET config = json_remove(config, ${remove}) WHERE name IN ('old', 'stopped')`);
        database.close();
        await daemon.up();

        const old = [0, start, 65536], now = [0, start, shared.count];
        const recorded = (map: string | undefined) => JSON.parse(map!)[0].Maprange;
        assert.deepEqual(await mapOf("old"), old);
        const { "volatile.idmap.current": current, "volatile.idmap.next": next } = await config("old");
        assert.deepEqual([current, next].map(recorded), [65536, shared.count]);
        await daemon.ok("start", "stopped");
        assert.deepEqual(await mapOf("stopped"), now);
        await daemon.ok("storage", "volume", "attach", "pool", "both", "c1", "data", "/data");
        await sh("c1", `touch /data/rare; chown ${rare} /data/rare; touch /data/c1; chown 5 /data/c1`);
        const look = "cd /data; stat -c '%n %u' *";
        const seen = (owner: number) => `c1 5\nold 1000\nrare ${owner}\nstopped 1000`;
        for (const [name, owner] of [["c1", rare], ["stopped", rare], ["old", 65534]] as const) {
          assert.equal(await sh(name, look), seen(owner), name);
        }
        // After a new attach, the disk has the volume's present map.
        await daemon.ok("config", "device", "remove", "old", "data");
        await daemon.ok("storage", "volume", "attach", "pool", "both", "old", "data", "/data");
        assert.equal(await sh("c1", look), seen(rare));
        assert.equal(await sh("old", "stat -c %u /root/rare /root/f"), "65534\n1000");
        await daemon.ok("restart", "-f", "old");
        assert.deepEqual(await mapOf("old"), now);
        assert.equal(await sh("old", `stat -c %u /root/rare /root/f; ${look}`), `${rare}\n1000\n${seen(rare)}`);
        assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
      },
    );
  });
}

Deno.test("ids follow /etc/subuid and /etc/subgid with the next start of the daemon and of the container", async (t) => {
  const ranges = mkdtempSync(join(tmpdir(), "lido-subid-"));
  const give = (...lines: string[]) => {
    for (const name of ["subuid", "subgid"]) {
      writeFileSync(
        join(ranges, name),
        lines.map((line) => `${line}\n`).join(""),
      );
    }
  };
  give("someone:100000:65536");
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(ranges, { recursive: true }));
  const binds = ["subuid", "subgid"].map((name) => `mount --bind ${ranges}/${name} /etc/${name}`).join(" && ");
  const daemon = await Daemon.start({ argv: ["unshare", "-m", "sh", "-c", `${binds} && exec "$0" "$@"`, executable] });
  stack.use(daemon);
  await daemon.furnish(await busyboxImage());
  const sh = (name: string, script: string) => daemon.ok("exec", name, "--", "sh", "-c", script);
  const mapOf = async (name: string) => (await sh(name, "cat /proc/self/uid_map")).trim().split(/\s+/).map(Number);
  const owners = (name: string) => sh(name, "stat -c %u /root/f /data/f");
  const again = async (...lines: string[]) => {
    give(...lines);
    await daemon.terminate();
    await daemon.up();
  };

  await t.step("none for root: LXD's default", async () => {
    await daemon.ok("launch", "bb", "c1");
    assert.deepEqual(await mapOf("c1"), [0, 1_000_000, 1_000_000_000]);
    await daemon.ok("launch", "bb", "i1", "-c", "security.idmap.isolated=true");
    assert.deepEqual(await mapOf("i1"), [0, 1_065_536, 65536]);
    for (const name of ["c1", "i1"]) {
      await daemon.ok("storage", "volume", "create", "fast", name);
      await daemon.ok("storage", "volume", "attach", "fast", name, name, "data", "/data");
      await sh(name, "for d in /root /data; do touch $d/f; chown 60000 $d/f; done");
    }
    await sh("c1", "touch /data/last /data/first; chown 999999999 /data/last; chown 200000 /data/first");
  });

  await t.step("one range: what runs keeps its map, then its files have the other's owners", async () => {
    await again("root:100000:10000001");
    assert.deepEqual(await mapOf("c1"), [0, 1_000_000, 1_000_000_000]);
    for (const name of ["c1", "i1"]) await daemon.ok("restart", "-f", name);
    assert.deepEqual(await mapOf("c1"), [0, 100_000, 10_000_001]);
    assert.deepEqual(await mapOf("i1"), [0, 165_536, 65536]);
    for (const name of ["c1", "i1"]) assert.equal(await owners(name), "60000\n60000");
    assert.equal(await sh("c1", "stat -c %u /data/first /data/last"), "200000\n65534");
  });

  await t.step("a further range: the isolated one has it, and no id of the shared map", async () => {
    await again("root:100000:10000001", "root:20000000:1000000");
    for (const name of ["c1", "i1"]) await daemon.ok("restart", "-f", name);
    assert.deepEqual(await mapOf("c1"), [0, 100_000, 10_000_001]);
    assert.deepEqual(await mapOf("i1"), [0, 20_000_000, 65536]);
    for (const name of ["c1", "i1"]) assert.equal(await owners(name), "60000\n60000");
  });

  await t.step("the first range again: an owner that was beyond the others' is there again", async () => {
    await again("someone:100000:65536");
    await daemon.ok("restart", "-f", "c1");
    assert.equal(await sh("c1", "stat -c %u /data/first /data/last"), "200000\n999999999");
  });
});
