/** Invalid names, sizes, keys and sources: refused with the reason, by the API and by both clients, and nothing changed. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { command, succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { Filesystem } from "../../support/filesystem.ts";
import { busyboxImage, craftedArchive } from "../../support/image.ts";
import { RawClient } from "../../support/raw.ts";
import { storageState } from "../../support/storage_state.ts";

const names = [
  "a b",
  "a/b",
  "../x",
  ".",
  "..",
  "-x",
  "a\u0001",
  "a\nb",
  "x".repeat(64),
  "é",
  "a\u2028b",
  "a%b",
  "\0",
  " ",
];
const sizes = [
  "-1",
  "-5GiB",
  "1.5GiB",
  "0.1B",
  "9223372036854775808",
  "8EiB",
  "99999999999999999999",
  "1e3",
  "0x10",
  "NaN",
  "10 GiB",
  "10gib",
  "10GiBs",
  "GiB",
  "١٠",
  " ",
];

Deno.test("bad input for storage is refused and changes nothing", async (t) => {
  await using filesystem = await Filesystem.make("btrfs", 150);
  await using daemon = await Daemon.start();
  const raw = new RawClient(daemon.directory);
  await daemon.ok("storage", "create", "b", "btrfs", "size=300MiB");
  await daemon.ok("storage", "create", "d", "dir");
  for (const pool of ["b", "d"]) await daemon.ok("storage", "volume", "create", pool, "kept");
  await daemon.ok("storage", "volume", "snapshot", "b", "kept", "s0");
  const outside = `${daemon.directory}.lxc`;
  mkdirSync(join(outside, "full"), { recursive: true });
  writeFileSync(join(outside, "full/file"), "1");
  mkdirSync(join(outside, "empty"));
  symlinkSync(join(outside, "empty"), join(outside, "link"));
  const state = async () => [
    await daemon.query("/1.0/storage-pools?recursion=1"),
    await daemon.query("/1.0/storage-pools/b/volumes?recursion=1"),
    await daemon.query("/1.0/storage-pools/d/volumes?recursion=1"),
    await storageState(daemon, ["b", "d"]),
    ...["disks", "storage-pools", "backups"].map((name) => readdirSync(join(daemon.directory, name)).sort()),
    readdirSync(outside, { recursive: true }).sort(),
  ];
  const before = await state();
  const unchanged = async () => assert.deepEqual(await state(), before, "something was changed");

  /** @param status 400; another one for things that do not exist. */
  async function refused(method: string, path: string, body: unknown, text: RegExp, status = 400): Promise<void> {
    const answer = await raw.ask(method, `/1.0${path}`, body);
    const what = `${method} ${path} ${JSON.stringify(body)}: ${answer.status} ${answer.body?.error}`;
    if (answer.status === 202) {
      const operation = await raw.wait(answer.body.metadata.id);
      assert.match(operation.err, text, what);
      return;
    }
    assert.equal(answer.status, status, what);
    assert.match(answer.body.error, text, what);
  }

  await t.step("names of pools, volumes, snapshots and backups, new ones and those of a rename", async () => {
    for (const name of [...names, ""]) {
      const text = /name/i;
      await refused("POST", "/storage-pools", { name, driver: "dir", config: {} }, text);
      const volumes = "/storage-pools/b/volumes/custom";
      await refused("POST", volumes, { name, type: "custom" }, text);
      await refused("POST", volumes, { name, type: "custom", source: { type: "copy", name: "kept", pool: "b" } }, text);
      if (name === "") continue; // an empty name means the same name, or one by the pattern
      await refused("POST", `${volumes}/kept`, { name }, text);
      await refused("POST", `${volumes}/kept`, { name, pool: "d" }, text);
      await refused("POST", `${volumes}/kept/snapshots`, { name }, text);
      await refused("POST", `${volumes}/kept/snapshots/s0`, { name }, text);
      await refused("POST", `${volumes}/kept/backups`, { name }, text);
    }
    await unchanged();
  });

  await t.step("names in URLs: what is encoded there is a name, and leads nowhere", async () => {
    for (const name of ["..%2F..%2Flido.db", "a%2Fb", "%2E%2E", "%00", "kept%2F", "%E0%A4%A", "%2e%2e%2f"]) {
      for (const method of ["GET", "DELETE"]) {
        const { status, body } = await raw.ask(method, `/1.0/storage-pools/d/volumes/custom/${name}`);
        assert.ok(status >= 400 && status < 500, `${method} ${name}: ${status} ${JSON.stringify(body)}`);
      }
    }
    await unchanged();
  });

  await t.step("sizes of volumes and pools", async () => {
    for (const size of sizes) {
      const text = /Invalid/;
      await refused("POST", "/storage-pools/b/volumes/custom", { name: "x", type: "custom", config: { size } }, text);
      await refused("PATCH", "/storage-pools/b/volumes/custom/kept", { config: { size } }, text);
      await refused("POST", "/storage-pools", { name: "x", driver: "btrfs", config: { size } }, text);
      await refused("PATCH", "/storage-pools/b", { config: { size } }, text);
      await refused("PATCH", "/storage-pools/b", { config: { "volume.size": size } }, text);
    }
    const over = /1.00GiB is more than its pool has, 300.00MiB/;
    await refused(
      "POST",
      "/storage-pools/b/volumes/custom",
      { name: "x", type: "custom", config: { size: "1GiB" } },
      over,
    );
    await refused("PATCH", "/storage-pools/b/volumes/custom/kept", { config: { size: "1GiB" } }, over);
    await refused("PATCH", "/storage-pools/b", { config: { size: "200MiB" } }, /shrink/);
    await refused("POST", "/storage-pools", { name: "x", driver: "btrfs", config: { size: "1MiB" } }, /at least/);
    await refused(
      "POST",
      "/storage-pools",
      { name: "x", driver: "btrfs", config: { size: "7EiB" } },
      /Invalid size 7\.00EiB of the pool: the filesystem of .* has no files so large/,
    );
    await refused("PATCH", "/storage-pools/b", { config: { size: "7EiB" } }, /Invalid size 7\.00EiB of the pool/);
    await unchanged();
  });

  await t.step("keys that no driver, or another driver, has", async () => {
    for (const key of ["nosuch", "volume.nosuch", "rsync.bwlimit", "lvm.vg_name", "Size", "__proto__", "constructor"]) {
      const text = new RegExp(`Invalid option "${key}"`);
      const config = JSON.parse(`{"${key}": "1"}`);
      await refused("POST", "/storage-pools", { name: "x", driver: "btrfs", config }, text);
      await refused("PATCH", "/storage-pools/b", { config }, text);
    }
    for (const key of ["nosuch", "btrfs.mount_options", "source", "zfs.blocksize", "lvm.stripes", "toString"]) {
      const text = new RegExp(`option "${key}"`);
      await refused(
        "POST",
        "/storage-pools/d/volumes/custom",
        { name: "x", type: "custom", config: { [key]: "1" } },
        text,
      );
      await refused("PATCH", "/storage-pools/d/volumes/custom/kept", { config: { [key]: "1" } }, text);
    }
    await unchanged();
  });

  await t.step("sources that are relative, missing, links, filled, files, or somebody's", async () => {
    const [device] = (await succeed(["findmnt", "-n", "-o", "SOURCE", filesystem.path])).split("\n");
    const fs = filesystem.path;
    mkdirSync(join(outside, "lido/storage-pools/p"), { recursive: true });
    writeFileSync(join(outside, "lido/lido.db"), "");
    const cases: readonly (readonly [string, string, RegExp])[] = [
      ["dir", "relative/path", /isn't absolute/],
      ["dir", "/nosuch/path", /'\/nosuch\/path' doesn't exist/],
      ["dir", join(outside, "link"), /is a symbolic link to/],
      ["dir", join(outside, "full"), /isn't empty/],
      ["dir", join(outside, "full/file"), /isn't a directory/],
      ["dir", "/dev/null", /isn't a directory/],
      ["dir", join(daemon.directory, "storage-pools/d/custom/default_kept"), /within the lido directory/],
      ["dir", join(outside, "lido/storage-pools/p"), /within the directory of another lido/],
      ["btrfs", "relative/path", /isn't absolute/],
      ["btrfs", "/nosuch/path", /doesn't exist/],
      ["btrfs", join(outside, "full/file"), /neither a block device nor a directory/],
      ["btrfs", join(outside, "empty"), /does not reside on a btrfs|isn't empty/],
      [
        "btrfs",
        join(daemon.directory, "storage-pools/b/custom/default_kept"),
        /within the lido directory|Only allowed/,
      ],
      ["btrfs", device!, /is in use: it is mounted/],
    ];
    for (const [driver, source, text] of cases) {
      await refused("POST", "/storage-pools", { name: "x", driver, config: { source } }, text);
      const wiped = { source, "source.wipe": "true" };
      if (driver === "btrfs") await refused("POST", "/storage-pools", { name: "x", driver, config: wiped }, text);
    }
    assert.deepEqual(readdirSync(fs), [], "the mounted filesystem is as it was");
    await succeed(["rm", "-r", join(outside, "lido")]);
    await unchanged();
  });

  await t.step("a swap", async () => {
    const file = join(outside, "swap");
    await succeed(["bash", "-c", `head -c 10M /dev/zero >${file} && mkswap -q ${file} 2>/dev/null`]);
    const device = await succeed(["losetup", "--find", "--show", file]);
    try {
      const { code } = await command(["swapon", device]);
      const text = code === 0 ? /is in use: it is mounted, a swap/ : /already holds swap/;
      await refused("POST", "/storage-pools", { name: "x", driver: "btrfs", config: { source: device } }, text);
    } finally {
      await command(["swapoff", device]);
      await succeed(["losetup", "-d", device]);
      await succeed(["rm", file]);
    }
    await unchanged();
  });

  await t.step("by lxc, too", async () => {
    for (
      const argv of [
        ["storage", "create", "a b", "dir"],
        ["storage", "create", "x", "dir", "btrfs.mount_options=ro"],
        ["storage", "create", "x", "btrfs", "size=1.5GiB"],
        ["storage", "volume", "create", "b", "a b"],
        ["storage", "volume", "create", "b", "x", "size=-1"],
        ["storage", "volume", "create", "b", "x", "nosuch=1"],
        ["storage", "volume", "rename", "b", "kept", "a b"],
        ["storage", "volume", "set", "b", "kept", "size", "1e3"],
      ]
    ) {
      const environment = { ...daemon.environment, HOME: `${outside}/home`, LXD_CONF: `${outside}/home` };
      const { code, err } = await command(["lxc", ...argv], { env: environment });
      assert.equal(code, 1, argv.join(" "));
      assert.match(err, /^Error: .*(Invalid|name)/m);
    }
    await succeed(["rm", "-rf", `${outside}/home`]);
    await unchanged();
  });

  await t.step("fifty at once: exactly one wins, the others are told that it is there", async () => {
    for (const pool of ["b", "d"]) {
      const answers = await Promise.all(
        Array.from(
          { length: 50 },
          () => raw.ask("POST", `/1.0/storage-pools/${pool}/volumes/custom`, { name: "race", type: "custom" }),
        ),
      );
      const texts = answers.map(({ status, body }) => status === 201 ? "made" : `${status}: ${body.error}`).sort();
      const others = new Array(49).fill("409: Volume by that name already exists");
      assert.deepEqual(texts, [...others, "made"]);
      await daemon.ok("storage", "volume", "delete", pool, "race");
    }
    const pools = await Promise.all(
      Array.from(
        { length: 20 },
        () => raw.ask("POST", "/1.0/storage-pools", { name: "race", driver: "dir", config: {} }),
      ),
    );
    assert.equal(pools.filter(({ status }) => status === 201).length, 1);
    assert.ok(pools.every(({ status }) => status === 201 || status === 409));
    await daemon.ok("storage", "delete", "race");
    await unchanged();
  });

  await t.step("an archive that is small and unpacks to more than the pool has", async () => {
    const content = "\0".repeat(100 << 20);
    const index = "name: bomb\ntype: custom\nsnapshots: []\nconfig: {volume: {config: {}}}\n";
    const files = Array.from({ length: 4 }, (_, number) => ({ name: `backup/volume/f${number}`, content }));
    using crafted = craftedArchive([
      { name: "backup/index.yaml", content: index },
      { name: "backup/volume", type: "5", mode: 0o755 },
      ...files,
    ]);
    await succeed(["gzip", "-1", crafted.path]);
    await daemon.fails(["storage", "volume", "import", "b", `${crafted.path}.gz`, "bomb"], /No space left on device/, {
      timeoutMs: 300_000,
    });
    await unchanged();
  });

  await t.step("deleting what is attached, restoring what runs", async () => {
    await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
    await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=d");
    await daemon.ok("launch", "bb", "c1");
    await daemon.ok("storage", "volume", "attach", "b", "kept", "c1", "/mnt");
    await daemon.fails(["storage", "volume", "delete", "b", "kept"], /The storage volume is still in use/);
    await daemon.fails(["storage", "volume", "rename", "b", "kept", "x"], /still in use/);
    await daemon.fails(["storage", "volume", "move", "b/kept", "d/x"], /still in use/);
    await daemon.fails(
      ["storage", "volume", "restore", "b", "kept", "s0"],
      /Cannot restore custom volume used by running instances/,
    );
    await daemon.fails(["storage", "delete", "b"], /in use/);
    assert.deepEqual(await storageState(daemon, ["b", "d"]), before[3]);
  });
});
