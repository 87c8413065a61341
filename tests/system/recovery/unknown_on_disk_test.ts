/** Unknown volumes on disk stay, whatever is requested: each verb checks before it makes or deletes something. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Database } from "../../../server/state/database.ts";
import { Daemon, projectRoot } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { RawClient } from "../../support/raw.ts";
import { Strangers } from "../../support/strangers.ts";
import { tree } from "../../support/tree.ts";

const backup = join(projectRoot, "tests/fixtures/lxd-5.0.2-volume.tar.gz");

Deno.test("volumes and snapshots that are on disk and not known stay as they are", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("init", "bb", "c1", "-s", "fast");
  await daemon.ok("init", "bb", "c2", "-s", "plain");
  for (const [pool, kind] of [["fast", "subvolume"], ["plain", "directory"]] as const) {
    await t.step(pool, () => onPool(daemon, pool, kind));
  }
});

Deno.test("an instance of which only the volume's row is left keeps its name, and is recovered", async () => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  for (const pool of ["fast", "plain"]) {
    await daemon.ok("init", "bb", "c1", "-s", pool);
    await daemon.terminate();
    const database = new Database(join(daemon.directory, "lido.db"));
    database.run("DELETE FROM instances");
    database.close();
    await daemon.up();
    const root = join(daemon.directory, "storage-pools", pool, "containers/c1");
    const before = tree(root);
    await daemon.fails(["init", "bb", "c1", "-s", pool], /is known, but no instance has it; see "lido admin recover"/);
    assert.deepEqual(tree(root), before);
    assert.match(await daemon.ok("admin", "recover", "--yes"), /1 recovered/);
    assert.deepEqual(Object.keys(tree(root)), Object.keys(before));
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
    await daemon.ok("start", "c1");
    await daemon.ok("delete", "-f", "c1");
  }
});

Deno.test("pools and image files that are on disk and not known stay, whatever fails", async () => {
  await using daemon = await Daemon.start();
  const image = await busyboxImage(), fingerprint = createHash("sha256").update(readFileSync(image)).digest("hex");
  const strangers = new Strangers();
  using _gone = { [Symbol.dispose]: () => strangers.remove() };
  strangers.plant(join(daemon.directory, "storage-pools/d/containers/web"));
  const disk = join(daemon.directory, "disks/b.img");
  writeFileSync(disk, "precious");
  await daemon.fails(["storage", "create", "d", "dir"], /"d" is on disk but not known, at ".*\/containers"; see/);
  await daemon.fails(["storage", "create", "b", "btrfs", "size=200MiB"], /"b" is on disk but not known, at ".*b\.img"/);
  assert.deepEqual(strangers.changed(), []);
  assert.equal(readFileSync(disk, "utf8"), "precious");
  rmSync(disk);
  rmSync(join(daemon.directory, "storage-pools/d"), { recursive: true });
  strangers.remove();
  // The file of an image that the database has lost may be imported again.
  const file = join(daemon.directory, "images", fingerprint);
  copyFileSync(image, file);
  await daemon.ok("image", "import", image, "--alias", "again");
  assert.equal(createHash("sha256").update(readFileSync(file)).digest("hex"), fingerprint);
});

Deno.test("what cannot be a volume is not made one: a file, a symbolic link, a directory on btrfs", async () => {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "b", "btrfs", "size=200MiB");
  await daemon.ok("storage", "create", "d", "dir");
  const outside = mkdtempSync(join(tmpdir(), "lido-outside-"));
  using _gone = { [Symbol.dispose]: () => rmSync(outside, { recursive: true }) };
  const planted: [path: string, subject: string, reason: string][] = [];
  const plant = (pool: string, path: string, subject: string, how: (path: string) => void, reason: string) => {
    const full = join(daemon.directory, "storage-pools", pool, path);
    mkdirSync(dirname(full), { recursive: true });
    how(full);
    planted.push([full, `pool "${pool}": ${subject}`, reason]);
  };
  const no = "it is no directory";
  for (const pool of ["b", "d"]) {
    await daemon.ok("storage", "volume", "create", pool, "v");
    for (const place of ["custom/default_", "custom-snapshots/default_v/"]) {
      const subject = (name: string) => place.includes("-") ? `custom "v": snapshot "${name}"` : `custom "${name}"`;
      plant(pool, `${place}file`, subject("file"), (path) => writeFileSync(path, "data"), no);
      plant(pool, `${place}link`, subject("link"), (path) => symlinkSync(outside, path), no);
      plant(pool, `${place}broken`, subject("broken"), (path) => symlinkSync("/nowhere", path), no);
      if (pool === "d") continue;
      plant(pool, `${place}plain`, subject("plain"), (path) => mkdirSync(path), "it is a directory and no subvolume");
    }
  }
  const { out, err } = await daemon.lido(["admin", "recover", "--yes"]);
  assert.doesNotMatch(out, /recovered/);
  const lines = err.split("\n").filter(Boolean).sort();
  assert.deepEqual(lines, planted.map(([, subject, reason]) => `Cannot be recovered: ${subject}: ${reason}`).sort());
  const check = (await daemon.lido(["admin", "check"])).out;
  assert.equal(check.split(`cannot be made known: ${no}`).length - 1, 12);
  for (const [path] of planted) rmSync(path, { recursive: true });
  assert.match(await daemon.ok("admin", "check", "--repair"), /Nothing is wrong|left it/);
  assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
});

async function onPool(daemon: Daemon, pool: string, kind: "subvolume" | "directory"): Promise<void> {
  const root = join(daemon.directory, "storage-pools", pool);
  const own = pool === "fast" ? "c1" : "c2";
  const strangers = new Strangers();
  using _gone = { [Symbol.dispose]: () => strangers.remove() };
  const plant = (path: string, how: Parameters<Strangers["plant"]>[1] = kind) => strangers.plant(join(root, path), how);
  const refused = async (argv: string[], pattern: RegExp) => {
    await daemon.fails(argv, pattern);
    assert.deepEqual(strangers.changed(), [], argv.join(" "));
    const open = (JSON.parse((await daemon.lido(["admin", "check", "-f", "json"])).out) as { subject: string }[])
      .filter(({ subject }) => subject.startsWith("journal/"));
    assert.deepEqual(open, [], argv.join(" "));
  };
  const volume = (...words: string[]) => ["storage", "volume", ...words];
  const recover = /is not known; see "lido admin recover"/;

  await daemon.ok(...volume("create", pool, "v"));
  writeFileSync(join(root, "custom/default_v/data"), "1");
  await daemon.ok(...volume("snapshot", pool, "v", "s0"));
  await daemon.ok("snapshot", own, "s0");

  // Names of unknown volumes, with and without content.
  for (const how of [kind, "empty directory"] as const) {
    plant("containers/web", how);
    plant("custom/default_web", how);
    await refused(["init", "bb", "web", "-s", pool], recover);
    await refused(["copy", own, "web", "-s", pool], recover);
    await refused(["rename", own, "web"], recover);
    await refused(volume("create", pool, "web"), recover);
    await refused(volume("copy", `${pool}/v`, `${pool}/web`), recover);
    await refused(volume("rename", pool, "v", "web"), recover);
    await refused(volume("import", pool, backup, "web"), recover);
    strangers.remove();
  }
  // Unknown snapshots without a volume.
  plant("containers-snapshots/web/s0");
  plant("custom-snapshots/default_web/s0");
  const alone = /Snapshots of a volume "web" exist on storage pool "\w+" without it: s0; see "lido admin check"/;
  await refused(["init", "bb", "web", "-s", pool], alone);
  await refused(["rename", own, "web"], alone);
  await refused(volume("create", pool, "web"), alone);
  await refused(volume("copy", `${pool}/v`, `${pool}/web`), alone);
  await refused(volume("rename", pool, "v", "web"), alone);
  strangers.remove();

  // Unknown snapshots of known volumes.
  for (const name of ["s1", "snap0"]) {
    plant(`containers-snapshots/${own}/${name}`);
    plant(`custom-snapshots/default_v/${name}`);
  }
  await refused(["snapshot", own, "s1"], recover);
  await refused(["rename", `${own}/s0`, `${own}/s1`], recover);
  await refused(volume("snapshot", pool, "v", "s1"), recover);
  await refused(volume("rename", pool, "v/s0", "v/s1"), recover);
  const group = await new RawClient(daemon.directory).ask("POST", "/1.0/storage-snapshot-groups", {
    name: "s1",
    volumes: [{ pool, name: "v" }],
  });
  assert.match((await new RawClient(daemon.directory).wait(group.body.metadata.id)).err, recover);
  assert.deepEqual(strangers.changed(), []);
  const lost = /has snapshots that are not known: (s1, snap0|snap0, s1); "lido admin recover" makes them known/;
  await refused(["delete", own], lost);
  await refused(volume("delete", pool, "v"), lost);
  await refused(volume("move", `${pool}/v`, `${pool === "fast" ? "plain" : "fast"}/v`), lost);
  // Automatic names skip those of unknown snapshots.
  await daemon.ok("snapshot", own);
  await daemon.ok(...volume("snapshot", pool, "v"));
  const names = async (path: string) =>
    (await daemon.query(path) as string[]).map((url) => url.split("/").at(-1)).sort();
  assert.deepEqual(await names(`/1.0/instances/${own}/snapshots`), ["s0", "snap1"]);
  assert.deepEqual(await names(`/1.0/storage-pools/${pool}/volumes/custom/v/snapshots`), ["s0", "snap1"]);
  assert.deepEqual(strangers.changed(), []);
  // After a recovery they are like any other snapshot.
  const out = await daemon.ok("admin", "recover", "--yes");
  assert.match(
    out,
    new RegExp(`Container "${own}" on pool "${pool}".* \\(includes 2 snapshots\\)\n {3}it is known; .*: s1, snap0`),
  );
  assert.match(out, new RegExp(`Volume "v" on pool "${pool}".* \\(includes 2 snapshots\\)`));
  assert.deepEqual(strangers.changed(), []);
  assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  assert.match(await daemon.ok("admin", "recover", "--yes"), /Nothing to do/);
  await daemon.ok(...volume("delete", pool, "v"));
  await daemon.ok("delete", own);
}
