/** Containers that shape the subvolumes in their own tree, against snapshots, copies and deletions of it: nothing outside of the tree changes, and
 * nested subvolumes are included. Another volume of the pool and a directory of the host are the targets that must not change. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fullStream, streamCommand } from "../support/btrfs_stream.ts";
import { Daemon } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";

const tool = (...argv: [string, ...string[]]): string => execFileSync(argv[0], argv.slice(1)).toString();
const subvolume = (path: string) => void tool("btrfs", "-q", "subvolume", "create", path);
const isReadonly = (path: string) => tool("btrfs", "property", "get", "-ts", path, "ro").trim() === "ro=true";
const isSubvolume = (path: string) => existsSync(path) && lstatSync(path).ino === 256;
/** Type, mode, owner, size and name of each file, and the content of all files. */
const fingerprint = (path: string) =>
  tool("find", path, "-printf", "%y %m %U:%G %s %i %P %l\n") +
  tool("find", path, "-type", "f", "-exec", "sha256sum", "{}", "+");

Deno.test("subvolumes nested in a container", async (t) => {
  const available = spawnSync("btrfs", ["--version"]).status === 0;
  assert.ok(available, "the host has btrfs-progs");
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await using undo = new AsyncDisposableStack();
  const canary = mkdtempSync(join(tmpdir(), "lido-canary-"));
  undo.defer(() => rmSync(canary, { recursive: true, force: true }));
  await daemon.ok("storage", "create", "shared", "btrfs", "size=512MiB");
  const pool = join(daemon.directory, "storage-pools/shared");
  const rootOf = (name: string) => join(pool, "containers", name, "rootfs");
  const snapshotOf = (name: string, snapshot: string) => join(pool, "containers-snapshots", name, snapshot, "rootfs");

  await daemon.ok("storage", "volume", "create", "shared", "victim");
  const victim = join(pool, "custom/default_victim");
  for (const place of [victim, canary]) {
    mkdirSync(join(place, "l"));
    if (place === victim) subvolume(join(place, "l/sub"));
    else mkdirSync(join(place, "l/sub"));
    writeFileSync(join(place, "l/sub/precious"), "of another\n");
    writeFileSync(join(place, "l/kept"), "of another\n");
  }
  const before = [victim, canary].map(fingerprint);
  const unharmed = () => assert.deepEqual([victim, canary].map(fingerprint), before);

  for (const [what, place] of [["another volume", victim], ["a directory of the host", canary]] as const) {
    await t.step(`a newline in a path does not make it one of ${what}`, async () => {
      await daemon.ok("init", "bb", "c1", "-s", "shared");
      // In a listing the name's first line reads as subvolume "x", which exists, and its second as "y/l/sub", where the symbolic link leads outside.
      const name = "x\nID 256 gen 7 top level 5 path y";
      subvolume(join(pool, "containers/c1/x"));
      mkdirSync(join(pool, "containers/c1", name, "l"), { recursive: true });
      subvolume(join(pool, "containers/c1", name, "l/sub"));
      writeFileSync(join(pool, "containers/c1", name, "l/sub/own"), "own\n");
      symlinkSync(place, join(pool, "containers/c1/y"));
      await daemon.ok("snapshot", "c1", "s0");
      unharmed();
      assert.equal(readFileSync(join(pool, "containers-snapshots/c1/s0", name, "l/sub/own"), "utf8"), "own\n");
      await daemon.ok("copy", "c1", "c2");
      await daemon.ok("restore", "c1", "s0");
      unharmed();
      for (const one of ["c1", "c2"]) await daemon.ok("delete", one);
      unharmed();
      assert.equal(existsSync(join(pool, "containers/c1")), false);
    });

    await t.step(`a directory exchanged with a symbolic link meanwhile leads to nothing of ${what}`, async () => {
      await daemon.ok("init", "bb", "c1", "-s", "shared");
      const root = rootOf("c1");
      mkdirSync(join(root, "d"));
      for (const name of ["sub", "sub2", "sub3"]) subvolume(join(root, "d", name));
      tool("chown", "-R", `--reference=${root}`, join(root, "d"));
      symlinkSync(place, join(root, "e"));
      await daemon.ok("start", "c1");
      const looping = daemon.lido([
        "exec",
        "c1",
        "--",
        "sh",
        "-c",
        "touch /going; while [ -e /going ]; do mv d l; mv e d; mv d e; mv l d; done; true",
      ]);
      for (const deadline = Date.now() + 10_000; !existsSync(join(root, "going"));) {
        assert.ok(Date.now() < deadline, "the loop runs");
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      for (let round = 0; round < 6; round++) {
        await daemon.ok("snapshot", "c1", `s${round}`);
        unharmed();
      }
      await daemon.ok("copy", "c1/s0", "c2");
      rmSync(join(root, "going"));
      const { code, err } = await looping;
      assert.equal(code, 0, err);
      for (const one of ["c1", "c2"]) await daemon.ok("delete", "--force", one);
      unharmed();
    });
  }

  await t.step(
    "names that are no text, nested ones in read-only ones, and paths longer than the kernel's limit",
    async () => {
      await daemon.ok("init", "bb", "c1", "-s", "shared");
      const root = rootOf("c1");
      subvolume(join(root, "docker"));
      subvolume(join(root, "docker/layer"));
      writeFileSync(join(root, "docker/layer/file"), "layer\n");
      tool("btrfs", "property", "set", "-ts", join(root, "docker/layer"), "ro", "true");
      subvolume(join(root, "docker/base"));
      subvolume(join(root, "docker/base/within"));
      tool("btrfs", "property", "set", "-ts", join(root, "docker/base"), "ro", "true");
      tool(
        "sh",
        "-c",
        `cd "$1" && for name in "$(printf 'a\\200')" "$(printf 'a\\201')"; do btrfs -q subvolume create "$name"; echo own > "$name/f"; done`,
        "sh",
        root,
      );
      const deep = "d".repeat(250);
      tool(
        "sh",
        "-c",
        `cd "$1"; for i in $(seq 20); do mkdir "$2" && cd -P ./"$2" || exit 1; done; btrfs -q subvolume create ./deep`,
        "sh",
        root,
        deep,
      );

      await daemon.ok("snapshot", "c1", "s0");
      const check = (at: string) => {
        assert.equal(readFileSync(join(at, "docker/layer/file"), "utf8"), "layer\n");
        for (const name of ["docker", "docker/layer", "docker/base", "docker/base/within"]) {
          assert.ok(isSubvolume(join(at, name)), `${name} is a subvolume`);
          assert.equal(isReadonly(join(at, name)), ["docker/layer", "docker/base"].includes(name), name);
        }
        assert.equal(tool("sh", "-c", `cat "$1"/a*/f`, "sh", at), "own\nown\n");
        const found = tool(
          "sh",
          "-c",
          `cd "$1"; for i in $(seq 20); do cd -P ./"$2" || exit 1; done; stat -c %i deep`,
          "sh",
          at,
          deep,
        );
        assert.equal(found, "256\n");
      };
      check(snapshotOf("c1", "s0"));
      assert.ok(isReadonly(join(pool, "containers-snapshots/c1/s0")));
      writeFileSync(join(root, "docker/new"), "after the snapshot\n");
      await daemon.ok("copy", "c1", "c2");
      check(rootOf("c2"));
      check(snapshotOf("c2", "s0"));
      await daemon.ok("restore", "c1", "s0");
      check(root);
      assert.equal(existsSync(join(root, "docker/new")), false);
      await daemon.ok("start", "c1");
      await daemon.ok("exec", "c1", "--", "sh", "-c", "echo more > /docker/more");
      await daemon.ok("delete", "c1/s0");
      for (const one of ["c1", "c2"]) await daemon.ok("delete", "--force", one);
      assert.deepEqual(
        tool("btrfs", "subvolume", "list", pool).split("\n").filter((line) => /containers/.test(line)),
        [],
      );
      unharmed();
    },
  );

  await t.step("those of a volume get the owners of who it is attached to, and stay read-only", async () => {
    await daemon.ok("storage", "volume", "create", "shared", "v");
    const volume = join(pool, "custom/default_v");
    for (const name of ["image", "image/within"]) {
      subvolume(join(volume, name));
      writeFileSync(join(volume, name, "file"), "of the image\n");
    }
    for (const name of ["image/within", "image"]) {
      tool("btrfs", "property", "set", "-ts", join(volume, name), "ro", "true");
    }
    for (const [name, ...settings] of [["c1"], ["c2", "-c", "security.idmap.isolated=true"]] as const) {
      await daemon.ok("launch", "bb", name, "-s", "shared", ...settings);
      await daemon.ok("storage", "volume", "attach", "shared", "v", name, "/v");
      const script = "cd /v && stat -c %u:%g image image/file image/within/file && ! touch image/new image/within/new";
      assert.equal(await daemon.ok("exec", name, "--", "sh", "-c", script), "0:0\n0:0\n0:0");
      assert.deepEqual(["image", "image/within"].map((name) => isReadonly(join(volume, name))), [true, true]);
      await daemon.ok("storage", "volume", "detach", "shared", "v", name);
      await daemon.ok("delete", "-f", name);
    }
    await daemon.ok("storage", "volume", "delete", "shared", "v");
    unharmed();
  });
});

Deno.test("a backup whose stream leads out of its volume is refused, and nothing is left of it", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "shared", "btrfs", "size=256MiB");
  const canary = mkdtempSync(join(tmpdir(), "lido-canary-"));
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rmSync(canary, { recursive: true, force: true }));
  writeFileSync(join(canary, "kept"), "of the host\n");
  const before = fingerprint(canary);

  const work = join(daemon.directory, "crafted");
  await daemon.ok("storage", "volume", "create", "shared", "a");
  await daemon.ok(
    "storage",
    "volume",
    "export",
    "shared",
    "a",
    `${work}.tar`,
    "--optimized-storage",
    "--compression",
    "none",
  );
  await daemon.ok("storage", "volume", "delete", "shared", "a");
  mkdirSync(work);
  tool("tar", "-xf", `${work}.tar`, "-C", work);
  const imported = (stream: Uint8Array) => {
    writeFileSync(join(work, "backup/volume.bin"), stream);
    const members = ["index.yaml", "optimized_header.yaml", "volume.bin"].map((name) => `backup/${name}`);
    tool("tar", "-cf", `${work}.tar`, "-C", work, ...members as [string]);
    return ["storage", "volume", "import", "shared", `${work}.tar`, "a"];
  };
  const uuid = crypto.getRandomValues(new Uint8Array(16));
  const raw = (text: string) => Buffer.from(text, "latin1");
  const file = (path: string | Uint8Array) => streamCommand(3, [[15, path], [3, 301n]]);
  const symlink = (path: string | Uint8Array, target: string) =>
    streamCommand(8, [[15, path], [3, 300n], [17, target]]);
  const write = (path: string) => streamCommand(15, [[15, path], [18, 0n], [19, "overwritten\n"]]);

  const attacks: Readonly<Record<string, readonly Uint8Array[]>> = {
    "a dot before a symbolic link": [symlink("x", canary), file("./x/new")],
    "an empty part after a symbolic link": [symlink("x", canary), file("x//new")],
    "two names that a decoder merges": [
      symlink(raw("\x80"), canary),
      file(raw("\x81")),
      streamCommand(11, [[15, raw("\x81")]]),
      file(raw("\x80/new")),
    ],
    "a hard link to a symbolic link": [
      symlink("x", join(canary, "kept")),
      streamCommand(10, [[15, "y"], [17, "x"]]),
      write("y"),
    ],
    "a device node": [streamCommand(5, [[15, "sda"], [3, 302n], [5, 0o060660n], [8, 0x800n]])],
    "a device node by a number that no double holds": [
      streamCommand(5, [[15, "sda"], [3, 302n], [5, (1n << 62n) | 0o060660n], [8, 0x800n]]),
    ],
  };
  for (const [what, commands] of Object.entries(attacks)) {
    await t.step(what, async () => {
      await daemon.fails(imported(fullStream(uuid, ...commands)), /Invalid backup: /);
      assert.equal(fingerprint(canary), before);
      assert.deepEqual(await daemon.query("/1.0/storage-pools/shared/volumes/custom"), []);
    });
  }

  const headerFile = join(work, "backup/optimized_header.yaml"), header = readFileSync(headerFile, "utf8");
  /** Imports a backup that has a subvolume within the volume. */
  const importedWithin = (path: string, file: string, ...commands: readonly Uint8Array[]) => {
    writeFileSync(headerFile, `${header}  - { path: ${JSON.stringify(path)}, snapshot: "", readonly: false }\n`);
    const own = crypto.getRandomValues(new Uint8Array(16));
    writeFileSync(join(work, "backup", file), fullStream(own, streamCommand(3, [[15, "new"], [3, 301n]])));
    const argv = imported(fullStream(uuid, ...commands));
    tool("tar", "-rf", `${work}.tar`, "-C", work, `backup/${file}`);
    writeFileSync(headerFile, header);
    return argv;
  };
  const mkdirIn = (path: string) => streamCommand(4, [[15, path], [3, 302n]]);
  const places: Readonly<Record<string, readonly [string, string, readonly Uint8Array[], RegExp]>> = {
    "in a directory that a symbolic link leads to": [
      "/x/sub",
      "volume_x-sub.bin",
      [symlink("x", canary)],
      /no place for subvolume "\/x\/sub"/,
    ],
    "in the place of a symbolic link": [
      "/x",
      "volume_x.bin",
      [symlink("x", join(canary, "missing"))],
      /in the place of something else/,
    ],
    "in the place of a directory with something in it": [
      "/x",
      "volume_x.bin",
      [mkdirIn("x"), file("x/kept")],
      /in the place of something else/,
    ],
    "above the volume": ["/../sub", "volume_..-sub.bin", [], /subvolume "\/\.\.\/sub" of "" is none/],
    "in a directory that is not there": ["/x/sub", "volume_x-sub.bin", [], /no place for subvolume/],
  };
  for (const [what, [path, name, commands, refusal]] of Object.entries(places)) {
    await t.step(`a subvolume ${what}`, async () => {
      await daemon.fails(importedWithin(path, name, ...commands), refusal);
      assert.equal(fingerprint(canary), before);
      assert.deepEqual(await daemon.query("/1.0/storage-pools/shared/volumes/custom"), []);
    });
  }

  await t.step("one that leads nowhere else is taken, a whiteout of overlayfs included", async () => {
    const whiteout = streamCommand(5, [[15, "gone"], [3, 303n], [8, 0n], [5, 0o020000n]]);
    await daemon.ok(...imported(fullStream(uuid, symlink("x", canary), file("f"), write("f"), whiteout)));
    const volume = join(daemon.directory, "storage-pools/shared/custom/default_a");
    assert.equal(readFileSync(join(volume, "f"), "utf8"), "overwritten\n");
    assert.ok(lstatSync(join(volume, "gone")).isCharacterDevice());
  });
});
