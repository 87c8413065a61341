/** Backups in btrfs's own format whose streams name subvolumes by UUID: they must not read another tenant's subvolumes, even if they know the
 * UUIDs or have set them on subvolumes of their own. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { differenceStream, fullStream, streamCommand } from "../support/btrfs_stream.ts";
import { succeed } from "../support/command.ts";
import { Daemon } from "../support/daemon.ts";
import { Filesystem } from "../support/filesystem.ts";

const blockBytes = 4096;
const block = (text: string) => text.padEnd(blockBytes, ".");
const uuid = () => crypto.getRandomValues(new Uint8Array(16));
const file = (path: string, content: string) =>
  Buffer.concat([
    streamCommand(3, [[15, path], [3, 300n]]),
    streamCommand(15, [[15, path], [18, 0n], [19, block(content)]]),
  ]);
const clone = (path: string, source: Uint8Array, sourcePath: string) =>
  Buffer.concat([
    streamCommand(3, [[15, path], [3, 301n]]),
    streamCommand(16, [[15, path], [18, 0n], [24, BigInt(blockBytes)], [20, source], [21, 1n], [22, sourcePath], [
      23,
      0n,
    ]]),
  ]);

Deno.test("a stream names no subvolume but its own and what it is based on", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "shared", "btrfs", "size=256MiB");
  const work = join(daemon.directory, "crafted");
  const volume = ["storage", "volume"];

  await daemon.ok(...volume, "create", "shared", "model");
  await daemon.ok(...volume, "snapshot", "shared", "model", "snap0");
  await daemon.ok(...volume, "export", "shared", "model", `${work}.tar`, "--optimized-storage", "--compression=none");
  mkdirSync(work);
  await succeed(["tar", "-xf", `${work}.tar`, "-C", work]);
  const members = ["index.yaml", "optimized_header.yaml", "volume-snapshots/snap0.bin", "volume.bin"];
  const craft = async (name: string, snapshot: Uint8Array, content: Uint8Array) => {
    const archive = `${work}-${name}.tar`;
    writeFileSync(join(work, "backup/volume-snapshots/snap0.bin"), snapshot);
    writeFileSync(join(work, "backup/volume.bin"), content);
    await succeed(["tar", "-cf", archive, "-C", work, ...members.map((member) => `backup/${member}`)]);
    return [...volume, "import", "shared", archive, name];
  };
  const pathOf = (pool: string, name: string) =>
    join(daemon.directory, "storage-pools", pool, "custom", `default_${name}`);
  const read = (path: string) => readFileSync(path, "latin1").split(".", 1)[0];

  await t.step("not the file of another's volume whose UUID it bears, nor all of that volume", async () => {
    const known = uuid(), last = uuid();
    const own = (content: string) => fullStream(known, file("secret", content));
    await daemon.ok(...await craft("victim", own("of another"), differenceStream(uuid(), known)));
    await daemon.ok(...await craft("thief", own("own"), differenceStream(last, known, clone("f", known, "secret"))));
    for (const name of ["secret", "f"]) assert.equal(read(join(pathOf("shared", "thief"), name)), "own");
    await daemon.fails(
      await craft("thief2", fullStream(known, clone("f", known, "secret")), differenceStream(uuid(), known)),
      /clone|No such file/i,
    );
    assert.ok(!existsSync(pathOf("shared", "thief2")));
  });

  await t.step("nor of one whose UUID it does not bear", async () => {
    const known = uuid(), own = uuid();
    await daemon.ok(
      ...await craft("victim2", fullStream(known, file("secret", "of another")), differenceStream(uuid(), known)),
    );
    const stolen = fullStream(own, clone("f", known, "secret"));
    await daemon.fails(await craft("thief3", stolen, differenceStream(uuid(), own)), /clones from another volume/);
  });

  await t.step("and is based on what came with it, not on what another has prepared", async () => {
    const known = uuid(), last = uuid();
    await daemon.ok(
      ...await craft("trap", fullStream(known, file("program", "of the trap")), differenceStream(uuid(), known)),
    );
    const difference = differenceStream(last, known, clone("again", known, "program"), clone("twice", last, "again"));
    await daemon.ok(...await craft("tenant", fullStream(known, file("program", "true")), difference));
    for (const name of ["program", "again", "twice"]) {
      assert.equal(read(join(pathOf("shared", "tenant"), name)), "true");
    }
  });

  await t.step("also where the pool is a directory in another subvolume", async () => {
    await using filesystem = await Filesystem.make("btrfs", 128);
    const source = join(filesystem.path, "a/b");
    mkdirSync(source, { recursive: true });
    await daemon.ok("storage", "create", "within", "btrfs", `source=${source}`);
    const known = uuid();
    const difference = differenceStream(uuid(), known, clone("again", known, "program"));
    const argv = await craft("tenant2", fullStream(known, file("program", "true")), difference);
    await daemon.ok(...argv.map((word) => word === "shared" ? "within" : word));
    assert.equal(read(join(pathOf("within", "tenant2"), "again")), "true");
    await daemon.ok(...volume, "copy", "within/tenant2", "shared/copy");
    assert.equal(read(join(pathOf("shared", "copy"), "again")), "true");
    await daemon.ok(...volume, "delete", "within", "tenant2");
    await daemon.ok("storage", "delete", "within");
  });
});
