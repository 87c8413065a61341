/** Backups of volumes: round trips through every format, between drivers, with the real client and from a real LXD, and hostile backups. */
import assert from "node:assert/strict";
import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { randomBytes, randomUUID } from "node:crypto";
import { request } from "node:http";
import { join } from "node:path";
import type { Operation } from "../../../api/types.ts";
import { command, succeed } from "../../support/command.ts";
import { Daemon, executable, projectRoot } from "../../support/daemon.ts";
import { craftedArchive } from "../../support/image.ts";
import { RawClient } from "../../support/raw.ts";
import { attributes, furnishTree, tree } from "../../support/tree.ts";

Deno.test("backups of volumes", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "plain", "dir");
  await daemon.ok("storage", "create", "fast", "btrfs", "size=256MiB");
  const at = (pool: string, volume: string) =>
    join(daemon.directory, "storage-pools", pool, "custom", `default_${volume}`);
  const work = (name: string) => join(daemon.directory, name);
  /** Temporary subvolumes that streams are made from and received into. */
  const leftOnFast = () => readdirSync(join(at("fast", "x"), "..")).filter((name) => name.startsWith("."));

  await daemon.ok("storage", "volume", "create", "plain", "data", "user.note=kept", "snapshots.expiry=1d");
  const root = at("plain", "data");
  await furnishTree(root);
  await daemon.ok("storage", "volume", "snapshot", "plain", "data", "first");
  writeFileSync(join(root, "later"), "after it");
  chmodSync(root, 0o751);

  const isSame = async (pool: string, volume: string) => {
    assert.deepEqual(tree(at(pool, volume)), tree(root));
    assert.deepEqual(await attributes(at(pool, volume)), await attributes(root));
    const snapshot = (place: string) => place.replace("/custom/", "/custom-snapshots/");
    assert.deepEqual(tree(join(snapshot(at(pool, volume)), "first")), tree(join(snapshot(root), "first")));
    const shown = await daemon.query(`/1.0/storage-pools/${pool}/volumes/custom/${volume}`) as { config: unknown };
    assert.deepEqual(shown.config, { "user.note": "kept", "snapshots.expiry": "1d" });
    const [first] = await daemon.query(`/1.0/storage-pools/${pool}/volumes/custom/${volume}/snapshots?recursion=1`) as [
      { name: string; expires_at: string },
    ];
    assert.equal(first.name, "first");
    assert.match(first.expires_at, /^20/);
    await daemon.ok("storage", "volume", "delete", pool, volume);
  };

  for (const compression of ["none", "gzip", "bzip2", "xz", "zstd"]) {
    await t.step(`there and back, ${compression}, to the same driver and another`, async () => {
      const file = work(`backup.${compression}`);
      await daemon.ok("storage", "volume", "export", "plain", "data", file, "--compression", compression);
      await daemon.ok("storage", "volume", "import", "plain", file, "copy");
      await isSame("plain", "copy");
      await daemon.ok("storage", "volume", "import", "fast", file);
      await isSame("fast", "data");
    });
  }

  await t.step(
    "an import that takes its time has a percentage, compressed or not: of the archive, as far as it was read",
    async () => {
      await daemon.ok("storage", "volume", "create", "plain", "large");
      writeFileSync(join(at("plain", "large"), "random"), randomBytes(24 * 1024 * 1024));
      for (const compression of ["none", "gzip"]) {
        const file = work(`large.${compression}`);
        await daemon.ok("storage", "volume", "export", "plain", "large", file, "--compression", compression);
        const archive = readFileSync(file);
        const answered = Promise.withResolvers<number>();
        const upload = request({
          method: "POST",
          path: "/1.0/storage-pools/plain/volumes/custom",
          socketPath: join(daemon.directory, "unix.socket"),
          headers: {
            "content-type": "application/octet-stream",
            "content-length": archive.length,
            "x-lxd-name": `slow-${compression}`,
          },
        }, (answer) => void answer.resume().on("end", () => answered.resolve(answer.statusCode!)));
        upload.on("error", answered.reject);
        const percent = async () => {
          const { running = [] } = await daemon.query("/1.0/operations?recursion=1") as { running?: Operation[] };
          const [restoring] = running.filter(({ description }) => description === "Restoring custom volume backup");
          return (restoring?.metadata?.progress as { percent?: string } | undefined)?.percent;
        };
        let sent = 0, seen: string | undefined;
        // Progress is reported after 200 ms: send the last tenth in small pieces, and read the progress before each.
        const most = Math.floor(archive.length * 0.9);
        while (sent < archive.length && !(seen = await percent())) {
          upload.write(archive.subarray(sent, sent += sent < most ? 1024 * 1024 : 2048));
        }
        upload.end(archive.subarray(sent));
        assert.equal(await answered.promise, 202);
        assert.ok(Number(seen) >= 0 && Number(seen) <= 95, `${compression}: ${seen} %`);
        assert.deepEqual(tree(at("plain", `slow-${compression}`)), tree(at("plain", "large")));
        await daemon.ok("storage", "volume", "delete", "plain", `slow-${compression}`);
      }
      await daemon.ok("storage", "volume", "delete", "plain", "large");
    },
  );

  await t.step("through a pipe, from btrfs, without snapshots", async () => {
    await daemon.ok("storage", "volume", "copy", "plain/data", "fast/source");
    const line = `${executable} storage volume export fast source - --volume-only --compression none | ` +
      `${executable} storage volume import plain - piped`;
    const { code, err } = await command(["bash", "-c", `set -o pipefail; ${line}`], { env: daemon.environment });
    assert.equal(code, 0, err);
    assert.deepEqual(tree(at("plain", "piped")), tree(root));
    assert.deepEqual(await daemon.query("/1.0/storage-pools/plain/volumes/custom/piped/snapshots"), []);
    assert.deepEqual(await daemon.query("/1.0/storage-pools/fast/volumes/custom/source/backups"), []);
    await daemon.ok("storage", "volume", "delete", "plain", "piped");
  });

  await t.step("a download that is given up at any moment lets go of the volume", async () => {
    const raw = new RawClient(daemon.directory);
    const backups = "/1.0/storage-pools/plain/volumes/custom/given/backups";
    await daemon.ok("storage", "volume", "create", "plain", "given");
    writeFileSync(join(at("plain", "given"), "big"), Buffer.alloc(4 << 20, "what does not fit into any buffer"));
    const made = await raw.ask("POST", backups, { name: "b", compression_algorithm: "none" });
    await raw.wait(made.body.metadata.id);
    for (let round = 0; round < 60; round++) await raw.giveUp(`${backups}/b/export`, round);
    await daemon.ok("storage", "volume", "delete", "plain", "given");
    assert.deepEqual(readdirSync(join(daemon.directory, "backups")), []);
  });

  await t.step("one that cannot begin is refused, and the daemon goes on", async () => {
    await daemon.ok("storage", "volume", "create", "plain", "lost");
    rmSync(at("plain", "lost"), { recursive: true });
    await daemon.fails(
      ["storage", "volume", "export", "plain", "lost", work("lost")],
      /known but not on disk: .*default_lost"/,
    );
    await daemon.ok("storage", "volume", "delete", "plain", "lost");
  });

  await t.step("by the real client", async () => {
    const file = work("by-lxc.tar.gz");
    await daemon.lxc("storage", "volume", "export", "plain", "data", file);
    await daemon.lxc("storage", "volume", "import", "fast", file, "copy");
    await isSame("fast", "copy");
  });

  await t.step("one that LXD 5.0.2 made", async () => {
    await daemon.ok("storage", "volume", "import", "fast", join(projectRoot, "tests/fixtures/lxd-5.0.2-volume.tar.gz"));
    assert.equal(readFileSync(join(at("fast", "bk"), "f"), "utf8"), "hello\n");
    const { config } = await daemon.query("/1.0/storage-pools/fast/volumes/custom/bk") as { config: unknown };
    assert.deepEqual(config, { "user.x": "1" });
    const snapshots = await daemon.query("/1.0/storage-pools/fast/volumes/custom/bk/snapshots?recursion=1") as {
      name: string;
      expires_at: unknown;
    }[];
    assert.deepEqual(snapshots.map(({ name, expires_at }) => [name, expires_at]), [["s0", null]]);
  });

  await t.step("one whose access lists are attributes only, as LXD writes them", async () => {
    await daemon.ok("storage", "volume", "export", "plain", "data", work("lists"), "--compression", "none");
    mkdirSync(work("unpacked"));
    const attributesOnly = ["--numeric-owner", "--xattrs", "--xattrs-include=*"];
    await succeed(["tar", "-x", "-p", ...attributesOnly, "-C", work("unpacked"), "-f", work("lists")]);
    const parts = ["backup/index.yaml", "backup/volume-snapshots", "backup/volume"];
    await succeed(["tar", "-c", ...attributesOnly, "-C", work("unpacked"), "-f", work("lists-only"), ...parts]);
    await daemon.ok("storage", "volume", "import", "plain", work("lists-only"), "lists");
    await isSame("plain", "lists");
  });

  await t.step("in btrfs's own format: one that LXD 5.0.2 made, there and back, and what is refused", async () => {
    const made = (name: string) => join(projectRoot, `tests/fixtures/lxd-5.0.2-volume-${name}.tar.gz`);
    const snapshots = (volume: string) => at("fast", volume).replace("/custom/", "/custom-snapshots/");
    await daemon.ok("storage", "volume", "import", "fast", made("optimized"), "o1");
    await daemon.ok("storage", "volume", "import", "fast", made("snapshots"), "o2");
    await daemon.ok("storage", "volume", "export", "fast", "o1", work("optimized"), "--optimized-storage");
    assert.equal(
      (await succeed(["tar", "tf", work("optimized")])).split("\n").join(" "),
      [
        "backup/index.yaml",
        "backup/optimized_header.yaml",
        "backup/volume-snapshots/s0.bin",
        "backup/volume-snapshots/s1.bin",
        "backup/volume.bin",
      ].join(" "),
    );
    await daemon.ok("storage", "volume", "import", "fast", work("optimized"), "o3");
    for (const other of ["o2", "o3"]) {
      assert.deepEqual(tree(at("fast", "o1")), tree(at("fast", other)));
      assert.deepEqual(tree(snapshots("o1")), tree(snapshots(other)));
    }
    writeFileSync(join(at("fast", "o3"), "written"), "");
    await daemon.fails(["storage", "volume", "import", "plain", made("optimized"), "x"], /driver "btrfs" differs from/);
    await daemon.ok("storage", "volume", "import", "fast", made("nested"), "o4");
    for (const place of [at("fast", "o4"), join(snapshots("o4"), "s2")]) {
      assert.equal(lstatSync(join(place, "nest")).ino, 256);
    }
    await daemon.ok("storage", "volume", "delete", "fast", "o4");
    const bytes = readFileSync(work("optimized"));
    writeFileSync(work("bad"), bytes.subarray(0, bytes.length - 300));
    await daemon.fails(["storage", "volume", "import", "fast", work("bad"), "x"], /Invalid backup/);
    for (const name of ["o1", "o2", "o3"]) await daemon.ok("storage", "volume", "delete", "fast", name);
  });

  await t.step("in btrfs's own format, with subvolumes within: there and back", async () => {
    const subvolume = (...argv: string[]) => succeed(["btrfs", "-q", "subvolume", ...argv]);
    const setReadonly = (path: string) => succeed(["btrfs", "property", "set", "-ts", path, "ro", "true"]);
    const isReadonly = async (path: string) =>
      (await succeed(["btrfs", "property", "get", "-ts", path, "ro"])) === "ro=true";
    const snapshots = (volume: string) => at("fast", volume).replace("/custom/", "/custom-snapshots/");
    await daemon.ok("storage", "volume", "create", "fast", "n1");
    const root = at("fast", "n1");
    mkdirSync(join(root, "a-b/deep"), { recursive: true });
    const names = ["a-b/deep/image", "a-b/deep/image/within", "layer"];
    for (const name of names) {
      await subvolume("create", join(root, name));
      writeFileSync(join(root, name, "file"), `first of ${name}\n`);
    }
    for (const name of ["a-b/deep/image/within", "a-b/deep/image"]) await setReadonly(join(root, name));
    await daemon.ok("storage", "volume", "snapshot", "fast", "n1", "s0");
    writeFileSync(join(root, "layer/file"), "second\n");
    for (const name of ["later", "gone"]) {
      await subvolume("create", join(root, name));
      writeFileSync(join(root, name, "file"), "later\n");
    }
    await daemon.ok("storage", "volume", "snapshot", "fast", "n1", "s1");
    // After the snapshot, replace one subvolume by a file, and delete the other.
    await subvolume("delete", join(root, "later"), join(root, "gone"));
    writeFileSync(join(root, "later"), "a file\n");
    writeFileSync(join(root, "layer/more"), "third\n");
    await daemon.ok("storage", "volume", "export", "fast", "n1", work("within"), "--optimized-storage");
    const members = (await succeed(["tar", "tf", work("within")])).split("\n");
    assert.ok(members.includes("backup/volume-snapshots/s0_a--b-deep-image-within.bin"), members.join(" "));
    assert.equal(members.filter((name) => name.endsWith(".bin")).length, 4 + 6 + 4);
    assert.deepEqual(leftOnFast(), []);
    await daemon.ok("storage", "volume", "import", "fast", work("within"), "n2");
    assert.deepEqual(tree(at("fast", "n2")), tree(root));
    assert.deepEqual(tree(snapshots("n2")), tree(snapshots("n1")));
    for (const place of [at("fast", "n2"), join(snapshots("n2"), "s0"), join(snapshots("n2"), "s1")]) {
      for (const name of names) {
        assert.equal(lstatSync(join(place, name)).ino, 256, name);
        assert.equal(await isReadonly(join(place, name)), name.startsWith("a-b"), join(place, name));
      }
      assert.equal(await isReadonly(place), place !== at("fast", "n2"));
    }
    assert.equal(lstatSync(join(snapshots("n2"), "s1/later")).ino, 256);
    // The imported volume works like any other.
    await daemon.ok("storage", "volume", "restore", "fast", "n2", "s1");
    assert.equal(readFileSync(join(at("fast", "n2"), "later/file"), "utf8"), "later\n");
    await daemon.ok("storage", "volume", "export", "fast", "n2", work("again"), "--optimized-storage");
    await daemon.ok("storage", "volume", "import", "fast", work("again"), "n3");
    assert.deepEqual(tree(at("fast", "n3")), tree(at("fast", "n2")));
    for (const name of ["n1", "n2", "n3"]) await daemon.ok("storage", "volume", "delete", "fast", name);
    assert.deepEqual(leftOnFast(), []);
  });

  const index = (more = "", snapshots = "[]") => ({
    name: "backup/index.yaml",
    mode: 0o644,
    content: `name: bad\ntype: custom\nsnapshots: ${snapshots}\n${more}config: {volume: {config: {}}}\n`,
  });
  const volume = { name: "backup/volume", type: "5", mode: 0o755 };
  const within = (entry: object) => [index(), volume, { mode: 0o644, ...entry } as never];
  const hostile: readonly (readonly [string, readonly never[] | readonly object[], RegExp])[] = [
    ["no index", [volume], /does not begin with backup\/index.yaml/],
    ["an index that is no YAML", [{ ...index(), content: "a: [" }, volume], /index.yaml/],
    ["an index without a name", [{ ...index(), content: "config: {volume: {}}" }, volume], /index.yaml: name/],
    ["a type of another kind", [{ ...index(), content: index().content.replace("custom", "container") }], /type/],
    ["a name that is none", [{ ...index(), content: index().content.replace("bad", "../bad") }, volume], /slashes/],
    ["a key that is unknown", [
      { ...index(), content: index().content.replace("config: {}", "config: {odd: 1}") },
      volume,
    ], /odd/],
    ["a snapshot's name that leads out", [index("", "['../x']"), volume], /slashes/],
    ["a snapshot that is missing", [index("", "[s0]"), volume], /"backup\/volume-snapshots\/s0" is missing/],
    ["a volume that is missing", [index()], /"backup\/volume" is missing/],
    ["a tree that is in no index", [...within({ name: "backup/volume-snapshots/odd", type: "5" })], /not in the index/],
    ["a path that goes up", within({ name: "backup/volume/../../etc/x", content: "x" }), /leads out/],
    ["an absolute path", within({ name: "/etc/x", content: "x" }), /leads out/],
    ["a file of no volume", within({ name: "backup/other", content: "x" }), /belongs to no volume/],
    ["a device", within({ name: "backup/volume/sda", type: "4" }), /device node/],
    [
      "a hard link outwards",
      within({ name: "backup/volume/l", type: "1", target: "../../../../etc/passwd" }),
      /hard link out/,
    ],
    [
      "a hard link to a host's file",
      within({ name: "backup/volume/l", type: "1", target: "/etc/passwd" }),
      /hard link out/,
    ],
    ["a hard link to a symbolic link's target", [
      index(),
      volume,
      { name: "backup/volume/s", type: "2", target: "/etc" },
      { name: "backup/volume/s/passwd", content: "x", mode: 0o644 },
    ], /symbolic link/],
    ["a volume that is a file", [index(), { name: "backup/volume", content: "x", mode: 0o644 }], /no directory/],
  ];
  const before = [
    await daemon.query("/1.0/storage-pools/plain/volumes?recursion=1"),
    await daemon.query("/1.0/storage-pools/fast/volumes?recursion=1"),
  ];
  for (const [name, entries, pattern] of hostile) {
    await t.step(`refused: ${name}`, async () => {
      using crafted = craftedArchive(entries as never);
      for (const pool of ["plain", "fast"]) {
        await daemon.fails(["storage", "volume", "import", pool, crafted.path], pattern);
      }
    });
  }
  await t.step(
    "refused: what is cut off, damaged or no archive; a name that is taken; a file that is there",
    async () => {
      const whole = readFileSync(work("backup.gzip"));
      const refuse = async (bytes: Uint8Array, pattern: RegExp) => {
        writeFileSync(work("bad"), bytes);
        await daemon.fails(["storage", "volume", "import", "fast", work("bad"), "bad"], pattern);
      };
      await refuse(whole.subarray(0, whole.length / 2), /Invalid backup: .*(truncated|unexpected end)/);
      await refuse(whole.map((byte, index) => index > 200 && index < 260 ? byte ^ 0x55 : byte), /Invalid backup/);
      await refuse(readFileSync(work("backup.none")).subarray(0, 50_000), /Invalid backup: the archive is truncated/);
      await refuse(Buffer.from("no archive at all"), /it is no tar archive/);
      await refuse(Buffer.alloc(0), /it is no tar archive/);
      await daemon.fails(
        ["storage", "volume", "import", "plain", work("backup.gzip")],
        /Volume by that name already exists/,
      );
      await daemon.fails(["storage", "volume", "export", "plain", "data", work("backup.gzip")], /it exists/);
      await daemon.fails(["storage", "volume", "export", "plain", "nosuch", work("x")], /not found/);
      assert.equal(existsSync(work("x")), false);
      await daemon.fails(["storage", "volume", "export", "plain", "data", work("x"), "--compression", "odd"], /"odd"/);
      await daemon.fails(["storage", "volume", "import", "plain", work("nosuch")], /no such file/);
    },
  );
  await t.step("nothing of all that is left", async () => {
    assert.deepEqual([
      await daemon.query("/1.0/storage-pools/plain/volumes?recursion=1"),
      await daemon.query("/1.0/storage-pools/fast/volumes?recursion=1"),
    ], before);
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
    assert.deepEqual(readdirSync(join(daemon.directory, "backups")), []);
    // An unfinished export of a killed daemon is deleted, too.
    writeFileSync(join(daemon.directory, "backups", `${randomUUID()}.yaml`), "backend: dir\n");
    await daemon.kill();
    await daemon.up();
    assert.deepEqual(readdirSync(join(daemon.directory, "backups")), []);
  });
});
