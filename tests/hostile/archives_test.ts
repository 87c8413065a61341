/** Images and backups that are made to reach the host: each must be refused or do no harm, and the host's files must stay unchanged. */
import assert from "node:assert/strict";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Canary } from "../support/canary.ts";
import { succeed } from "../support/command.ts";
import { Daemon } from "../support/daemon.ts";
import { craftedArchive, craftedImage, type Entry, pax } from "../support/image.ts";
import { SecondClient } from "../support/second_client.ts";
import { attributes } from "../support/tree.ts";

const template =
  "architecture: x86_64\ncreation_date: 1\ntemplates:\n  /etc/hostname:\n    when: [create, copy, start]\n" +
  "    template: hostname.tpl\n";
const metadata: Entry = { name: "metadata.yaml", content: template, mode: 0o644 };
const templates: readonly Entry[] = [
  { name: "templates/", type: "5" },
  { name: "templates/hostname.tpl", content: "pwned {{ container.name }}\n", mode: 0o644 },
];
const directory = (name: string): Entry => ({ name, type: "5" });
const longName = (name: string): Entry => ({ name: "././@LongLink", type: "L", content: `${name}\0` });
/** @param records Records for the entry that follows. */
const before = (records: Record<string, string>): Entry => ({ name: "pax", type: "x", content: pax(records) });
const deep = "d/".repeat(30_000);

Deno.test("hostile images and backups", async (t) => {
  using canary = new Canary();
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "d", "dir");
  await daemon.ok("storage", "create", "b", "btrfs", "size=256MiB");
  await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=d");
  const host = canary.directory;
  const work = mkdtempSync(join(tmpdir(), "lido-hostile-"));
  using _work = { [Symbol.dispose]: () => rmSync(work, { recursive: true, force: true }) };
  const root = (pool: string, name: string) =>
    join(daemon.directory, "storage-pools", pool, "containers", name, "rootfs");
  const volume = (pool: string, name: string) =>
    join(daemon.directory, "storage-pools", pool, "custom", `default_${name}`);

  /** Imports an image, and makes and starts instances of it if possible.
   * @param inspect Checks the root filesystem of an instance. @returns The first refusal. */
  const attack = async (
    files: readonly string[],
    inspect: (rootfs: string) => void = () => {},
  ): Promise<string | undefined> => {
    let refusal: string | undefined;
    const began = performance.now();
    const imported = await daemon.lido(["image", "import", ...files, "--alias", "hostile"]);
    if (imported.code !== 0) refusal = imported.err;
    else {
      for (const pool of ["d", "b"]) {
        const made = await daemon.lido(["init", "hostile", "h", "-s", pool]);
        if (made.code === 0) {
          inspect(root(pool, "h"));
          await daemon.lido(["start", "h"]);
          await daemon.ok("delete", "-f", "h");
        } else refusal ??= made.err;
      }
      await daemon.ok("image", "delete", "hostile");
    }
    assert.ok(performance.now() - began < 60_000, "no answer for a minute");
    return refusal;
  };
  const image = async (entries: readonly Entry[], inspect?: (rootfs: string) => void) => {
    using crafted = craftedArchive([metadata, ...templates, ...entries]);
    return await attack([crafted.path], inspect);
  };
  const noDevices = (rootfs: string) => {
    for (const name of readdirSync(rootfs, { recursive: true })) {
      const info = lstatSync(join(rootfs, String(name)));
      assert.ok(!info.isBlockDevice() && !(info.isCharacterDevice() && info.rdev !== 0), `${name} is a device`);
    }
  };

  const refused: readonly (readonly [string, readonly Entry[], RegExp])[] = [
    ["a rootfs that is a symbolic link", [{ name: "rootfs", type: "2", target: host }], /rootfs/],
    ["the same with a name in disguise", [{ name: "./rootfs//", type: "2", target: host }], /rootfs/],
    ["a rootfs that becomes a symbolic link later", [
      directory("rootfs"),
      { name: "rootfs", type: "2", target: host },
    ], /rootfs/],
    [
      "a rootfs that is a hard link",
      [directory("rootfs"), { name: "rootfs", type: "1", target: "templates" }],
      /rootfs/,
    ],
    ["templates that are a symbolic link", [
      directory("rootfs"),
      { name: "templates", type: "2", target: join(host, "etc") },
    ], /templates/],
    ["a template that is a symbolic link", [
      directory("rootfs"),
      { name: "templates/hostname.tpl", type: "2", target: join(host, "etc/shadow") },
    ], /templates/],
    ["a file through a symbolic link", [
      directory("rootfs"),
      { name: "rootfs/x", type: "2", target: host },
      { name: "rootfs/x/etc/passwd", content: "pwned" },
    ], /symbolic link/],
    ["the same by names in disguise", [
      directory("rootfs"),
      { name: "rootfs/./x", type: "2", target: host },
      { name: "rootfs//x/etc/passwd", content: "pwned" },
    ], /symbolic link/],
    ["a file through a second name of a symbolic link", [
      directory("rootfs"),
      { name: "rootfs/x", type: "2", target: host },
      { name: "rootfs/y", type: "1", target: "rootfs/x" },
      { name: "rootfs/y/etc/passwd", content: "pwned" },
    ], /symbolic link/],
    ["a hard link through a symbolic link", [
      directory("rootfs"),
      { name: "rootfs/x", type: "2", target: host },
      { name: "rootfs/shadow", type: "1", target: "rootfs/x/etc/shadow" },
    ], /symbolic link/],
    ["a hard link out of the root filesystem", [
      directory("rootfs"),
      { name: "rootfs/m", type: "1", target: "metadata.yaml" },
    ], /hard link/],
    ["a path that goes up", [directory("rootfs"), { name: "rootfs/../../../out", content: "x" }], /leads out/],
    ["a path of 30,000 parts", [directory("rootfs"), longName(`rootfs/${deep}`), { name: "x", type: "5" }], /path/],
    ["the same, many times", [
      directory("rootfs"),
      ...Array.from({ length: 200 }, () => [longName(`rootfs/${deep}`), { name: "x", type: "5" }]).flat(),
    ], /path/],
    ["a device node", [directory("rootfs"), { name: "rootfs//mem", type: "3" }], /device node/],
    ["a FIFO with content that holds another header", [
      directory("rootfs"),
      { name: "rootfs/f", type: "6", content: "x".repeat(512) },
    ], /size/],
    ["a directory with a size", [{ ...directory("rootfs"), sizeBytes: 512 }, directory("rootfs/a")], /size/],
    ["a global header that renames", [
      { name: "g", type: "g", content: pax({ path: "rootfs/x" }) },
      directory("rootfs"),
    ], /global/],
    ["a name with a NUL", [directory("rootfs"), before({ path: "rootfs/a\0b" }), { name: "x", content: "y" }], /NUL/],
    ["owners that no system has", [directory("rootfs"), before({ uid: "4294967295" }), { name: "rootfs/x" }], /uid/],
  ];
  for (const [name, entries, pattern] of refused) {
    await t.step(`refused: ${name}`, async () => {
      const refusal = await image(entries, noDevices);
      canary.check(name);
      assert.match(refusal ?? "it was accepted", pattern);
      assert.match(refusal!, /^Error: [^\n]+\n$/);
    });
  }

  await t.step("metadata and templates that would hold the daemon for minutes hold nobody", async () => {
    await using _second = new SecondClient(daemon.directory);
    const keys = Array.from({ length: 100_000 }, (_, index) => `k${index}: 1\n`).join("");
    using crafted = craftedArchive([{ ...metadata, content: template + keys }, directory("rootfs")]);
    assert.match(
      await attack([crafted.path]) ?? "",
      /metadata.yaml cannot be read: It has \d+ parts, 60000 are allowed/,
    );
    const slow = { ...templates[1]!, content: "{{".repeat(1 << 18) };
    using other = craftedArchive([metadata, templates[0]!, slow, directory("rootfs"), directory("rootfs/etc")]);
    await daemon.ok("image", "import", other.path, "--alias", "slow");
    await daemon.ok("init", "slow", "h", "-s", "d");
    await daemon.fails(["start", "h"], /Failed to render template "hostname.tpl": unsupported/);
    await daemon.ok("delete", "h");
    await daemon.ok("image", "delete", "slow");
    canary.check("slow metadata");
  });

  await t.step("device nodes in /dev are left out, however they are named", async () => {
    const names = ["rootfs/dev/mem", "rootfs//dev/mem2", "./rootfs/./dev//mem3", "/rootfs/dev/mem4"];
    const refusal = await image([
      directory("rootfs"),
      directory("rootfs/dev"),
      ...names.flatMap((name): Entry[] => [{ name, type: "3" }, { name: `${name}b`, type: "4" }]),
    ], (rootfs) => assert.deepEqual(readdirSync(join(rootfs, "dev")), []));
    assert.equal(refusal, undefined);
  });

  await t.step("attributes by which the daemon remembers things are left out, others stay", async () => {
    const refusal = await image([
      directory("rootfs"),
      before({
        "SCHILY.xattr.trusted.lido.shift": '{"mode":2541}',
        "SCHILY.xattr.trusted.lido.project": "7",
        "SCHILY.xattr.trusted.other": "x",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.kept": "yes",
      }),
      { name: "rootfs/file", content: "x" },
    ], (rootfs) => {
      assert.ok(existsSync(join(rootfs, "file")));
    });
    assert.equal(refusal, undefined);
    using crafted = craftedArchive([
      { name: "backup/index.yaml", content: "name: x\nconfig: {volume: {config: {}}}\n" },
      before({ "SCHILY.xattr.trusted.lido.project": "7", "SCHILY.xattr.user.top": "1" }),
      directory("backup/volume"),
      before({ "SCHILY.xattr.trusted.lido.shift": "{}", "SCHILY.xattr.user.kept": "yes" }),
      { name: "backup/volume/file", content: "x" },
    ]);
    await daemon.ok("storage", "volume", "import", "b", crafted.path, "attributes");
    const text = (await attributes(volume("b", "attributes"))).join("\n");
    assert.match(text, /user\.kept="yes"/);
    assert.match(text, /user\.top="1"/);
    assert.doesNotMatch(text, /trusted\.lido/);
    await daemon.ok("storage", "volume", "delete", "b", "attributes");
  });

  await t.step("a leading slash is dropped, as tar drops it", async () => {
    const refusal = await image([
      directory("/rootfs"),
      { name: "/rootfs/etc/file", content: "x" },
      { name: "/rootfs/etc/second", type: "1", target: "/rootfs/etc/file" },
    ], (rootfs) => assert.equal(statSync(join(rootfs, "etc/second")).nlink, 2));
    assert.equal(refusal, undefined);
  });

  await t.step("split images: a metadata tarball cannot prepare the way of the root filesystem", async () => {
    const split = async (first: readonly Entry[], second: readonly Entry[]) => {
      using main = craftedArchive([metadata, ...templates, ...first]);
      using rootfs = craftedArchive(second);
      return await attack([main.path, rootfs.path]);
    };
    const file = [directory("etc"), { name: "x/etc/passwd", content: "pwned" }];
    assert.match(await split([{ name: "rootfs", type: "2", target: host }], file) ?? "accepted", /rootfs/);
    canary.check("rootfs is a symbolic link");
    const way: Entry[] = [directory("rootfs"), { name: "rootfs/x", type: "2", target: host }];
    assert.match(await split(way, file) ?? "accepted", /rootfs/);
    canary.check("rootfs/x is a symbolic link");
    assert.match(await split([], [{ name: ".", type: "2", target: host }, ...file]) ?? "accepted", /rootfs|directory/);
    canary.check("the top is a symbolic link");
    assert.equal(await split([directory("rootfs")], [directory("./"), { name: "./a", content: "x" }]), undefined);
  });

  await t.step("split images with a squashfs: no device nodes, no attributes of ours, all else stays", async () => {
    const tree = join(work, "tree");
    mkdirSync(join(tree, "dev"), { recursive: true });
    mkdirSync(join(tree, "sub"));
    writeFileSync(join(tree, "file"), "x", { mode: 0o640 });
    symlinkSync(host, join(tree, "x"));
    await succeed(["mknod", join(tree, "dev/xda"), "b", "7", "0"]);
    await succeed(["setfattr", "-n", "trusted.lido.shift", "-v", "{}", join(tree, "file")]);
    await succeed(["setfattr", "-n", "user.kept", "-v", "yes", join(tree, "file")]);
    using main = craftedArchive([metadata, ...templates]);
    await succeed(["mksquashfs", tree, join(work, "good.squashfs"), "-noappend", "-quiet", "-no-progress"]);
    const refusal = await attack([main.path, join(work, "good.squashfs")], (rootfs) => {
      noDevices(rootfs);
      assert.equal(readFileSync(join(rootfs, "file"), "utf8"), "x");
      assert.equal(statSync(join(rootfs, "file")).mode & 0o7777, 0o640);
    });
    assert.equal(refusal, undefined);
    await succeed(["mknod", join(tree, "sub/xda"), "b", "7", "0"]);
    await succeed(["mksquashfs", tree, join(work, "bad.squashfs"), "-noappend", "-quiet", "-no-progress"]);
    assert.match(await attack([main.path, join(work, "bad.squashfs")], noDevices) ?? "accepted", /device node/);
    const whole = readFileSync(join(work, "good.squashfs"));
    writeFileSync(join(work, "cut.squashfs"), whole.subarray(0, 300));
    assert.match(await attack([main.path, join(work, "cut.squashfs")]) ?? "accepted", /Invalid image/);
    canary.check("squashfs");
  });

  await t.step("an image's file that changed after it was imported is checked again", async () => {
    using good = craftedImage([{ name: "rootfs/file", content: "x" }]);
    using bad = craftedImage([
      { name: "rootfs/x", type: "2", target: host },
      { name: "rootfs/x/etc/passwd", content: "pwned" },
    ]);
    await daemon.ok("image", "import", good.path, "--alias", "hostile");
    const [{ fingerprint }] = await daemon.query("/1.0/images?recursion=1") as [{ fingerprint: string }];
    writeFileSync(join(daemon.directory, "images", fingerprint), readFileSync(bad.path));
    await daemon.fails(["init", "hostile", "h"], /symbolic link/);
    await daemon.ok("image", "delete", "hostile");
    canary.check("a changed file");
  });

  await t.step("a root filesystem that is a symbolic link on disk is neither written through nor started", async () => {
    using good = craftedArchive([metadata, ...templates, directory("rootfs"), directory("rootfs/etc")]);
    await daemon.ok("image", "import", good.path, "--alias", "hostile");
    await daemon.ok("init", "hostile", "h");
    const rootfs = root("d", "h");
    renameSync(rootfs, `${rootfs}.real`);
    symlinkSync(host, rootfs);
    await daemon.fails(["start", "h"], /Not a directory: .*rootfs/);
    canary.check("rootfs is a symbolic link on disk");
    rmSync(rootfs);
    renameSync(`${rootfs}.real`, rootfs);
    await daemon.ok("delete", "h");
    await daemon.ok("image", "delete", "hostile");
  });

  await t.step("backups: whiteouts come back, no other node does, paths are as long as a path may be", async () => {
    const backup = async (entries: readonly Entry[], check: (tree: string) => void = () => {}) => {
      using crafted = craftedArchive([
        { name: "backup/index.yaml", content: "name: x\nconfig: {volume: {config: {}}}\n" },
        directory("backup/volume"),
        ...entries,
      ]);
      const began = performance.now();
      const { code, err } = await daemon.lido(["storage", "volume", "import", "d", crafted.path, "hostile"]);
      assert.ok(performance.now() - began < 30_000, "no answer for half a minute");
      canary.check("a backup");
      if (code !== 0) return err;
      check(volume("d", "hostile"));
      await daemon.ok("storage", "volume", "delete", "d", "hostile");
      return undefined;
    };
    const within = (name: string, rest: Partial<Entry>): Entry => ({
      name: `backup/volume/${name}`,
      mode: 0o644,
      ...rest,
    });
    assert.equal(
      await backup([within("gone", { type: "3", device: [0, 0] })], (tree) => {
        const info = lstatSync(join(tree, "gone"));
        assert.ok(info.isCharacterDevice() && info.rdev === 0);
      }),
      undefined,
    );
    for (const [type, device] of [["3", [0, 1]], ["3", [1, 0]], ["4", [0, 0]], ["4", [8, 0]]] as const) {
      assert.match(await backup([within("node", { type, device })]) ?? "accepted", /device node/);
    }
    assert.match(await backup([longName(`backup/volume/${deep}`), within("x", {})]) ?? "accepted", /path/);
    assert.match(
      await backup([
        within("x", { type: "2", target: host }),
        within("y", { type: "1", target: "backup/volume/x" }),
        within("y/etc/passwd", { content: "pwned" }),
      ]) ?? "accepted",
      /symbolic link/,
    );
    assert.match(
      await backup([within("x/etc/f", { content: "pwned" }), within("x", { type: "2", target: host })]) ?? "accepted",
      /x/,
    );
  });

  await t.step("every export can be imported: whiteouts, holes; what cannot is refused at the export", async () => {
    await daemon.ok("storage", "volume", "create", "d", "odd");
    const source = volume("d", "odd");
    await succeed(["mknod", join(source, "gone"), "c", "0", "0"]);
    await succeed(["mkfifo", join(source, "fifo")]);
    writeFileSync(join(source, "holes"), "begin");
    truncateSync(join(source, "holes"), 5 * 2 ** 30);
    await succeed([
      "dd",
      "if=/dev/zero",
      `of=${join(source, "holes")}`,
      "bs=1M",
      "count=1",
      "seek=3000",
      "conv=notrunc",
    ]);
    await succeed(["setfattr", "-n", "user.top", "-v", "1", source]);
    symlinkSync(host, join(source, "link"));
    await succeed(["ln", "-P", join(source, "link"), join(source, "link2")]);
    const file = join(work, "backup");
    const began = performance.now();
    await daemon.ok("storage", "volume", "export", "d", "odd", file, "--compression", "none");
    assert.ok(statSync(file).size < 8 << 20, `the backup has ${statSync(file).size} bytes`);
    // The pool has 256 MiB, the sparse file 5 GiB.
    await daemon.ok("storage", "volume", "import", "b", file, "odd");
    assert.ok(performance.now() - began < 15_000, "holes were written as zeros");
    const target = volume("b", "odd");
    assert.equal(statSync(join(target, "holes")).size, 5 * 2 ** 30);
    assert.ok(statSync(join(target, "holes")).blocks * 512 < 8 << 20);
    await succeed(["cmp", join(source, "holes"), join(target, "holes"), "-n", String(8 << 20)]);
    assert.ok(lstatSync(join(target, "gone")).isCharacterDevice());
    assert.ok(lstatSync(join(target, "fifo")).isFIFO());
    assert.ok(lstatSync(join(target, "link2")).isSymbolicLink());
    assert.match((await attributes(target)).join("\n"), /user\.top="1"/);
    await succeed(["mknod", join(source, "disk"), "b", "7", "0"]);
    const { code, err } = await daemon.lido(["storage", "volume", "export", "d", "odd", join(work, "bad")]);
    assert.equal(code, 1);
    // The stream may end, and the client with it, before the operation has ended and its failure is logged.
    const reason = /Cannot make the backup: .*disk.* is a device node/;
    const deadline = performance.now() + 10_000;
    while (!reason.test(err + daemon.log) && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.match(err + daemon.log, reason);
    for (const pool of ["d", "b"]) await daemon.ok("storage", "volume", "delete", pool, "odd");
  });

  assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
});
