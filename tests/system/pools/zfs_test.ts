/** Behaviour of ZFS alone: sources of every kind and the refusals of each, restores past later snapshots, copies that keep their source,
 * resumed streams, devices that vanish. The suites that run on any driver test the rest. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createHost } from "../../../drivers/host/real.ts";
import { driverKinds } from "../../../drivers/storage/registry.ts";
import { succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { loopDevice } from "../../support/loop_device.ts";
import { loseDatabase } from "../../support/lost_pool.ts";
import { step, StorageRequests } from "../../support/storage_requests.ts";

const MiB = 1024 * 1024;
const host = createHost();
const probed = await driverKinds.get("zfs")!.probe(host);
const run = (...argv: string[]) => succeed(argv, { timeoutMs: 120_000 });
/** A name for this process alone: names of ZFS pools are global. */
const zpool = (name: string) => `lt-${process.pid}-${name}`;

class Api extends StorageRequests {
  pool(name: string, config: object) {
    return this.makePool(name, "zfs", config);
  }

  /** Mounts the volume in another place than the daemon's, for `work`. */
  async within<T>(dataset: string, work: (path: string) => T | Promise<T>): Promise<T> {
    const path = mkdtempSync(join(tmpdir(), "lido-zfs-mount-"));
    await host.mounts.mount(dataset, path, "zfs");
    try {
      return await work(path);
    } finally {
      await host.mounts.unmount(path);
      rmSync(path, { recursive: true });
    }
  }
}

if ("missing" in probed) {
  Deno.test({ name: `zfs: not on this host: ${probed.missing}`, ignore: true, fn: () => {} });
} else {
  Deno.test({ name: "zfs", fn: story, sanitizeResources: false });
}

async function story(t: Deno.TestContext): Promise<void> {
  await using undo = new AsyncDisposableStack();
  const base = mkdtempSync(join(tmpdir(), "lido-zfs-"));
  undo.defer(() => rmSync(base, { recursive: true, force: true }));
  const device = (name: string, sizeMiB = 256) => loopDevice(base, name, undo, sizeMiB);
  const [a, b, c, small] = [await device("a"), await device("b"), await device("c"), await device("small", 32)];
  await using daemon = await Daemon.start();
  const api = new Api(daemon.directory);
  const zfs = (...words: string[]) => run("zfs", ...words);
  const names = async (dataset: string) =>
    (await zfs("list", "-H", "-o", "name", "-t", "filesystem,snapshot", "-r", dataset)).split("\n");
  const origin = (dataset: string) => zfs("get", "-H", "-o", "value", "origin", dataset);
  const one = zpool("one");

  await step(t, "the layout is LXD's, and the daemon knows the driver's version", async () => {
    await api.pool("one", { size: "1GiB", "zfs.pool_name": one });
    const { environment } = await api.ask("GET", "");
    assert.ok(
      environment.storage_supported_drivers.some(({ Name, Version }: { Name: string; Version: string }) =>
        Name === "zfs" && /^\d+\.\d+/.test(Version)
      ),
    );
    const types = ["containers", "custom", "images", "virtual-machines"];
    assert.deepEqual(
      (await names(one)).sort(),
      [
        one,
        ...types.map((type) => `${one}/${type}`),
        `${one}/deleted`,
        ...types.map((type) => `${one}/deleted/${type}`),
      ]
        .sort(),
    );
    await api.volume("one", "v", {
      size: "50MiB",
      "zfs.blocksize": "16KiB",
      "zfs.use_refquota": "true",
      "zfs.reserve_space": "true",
    });
    const keys = "mountpoint,xattr,acltype,recordsize,refquota,refreservation,quota";
    assert.deepEqual(
      // Since 2.3 ZFS shows "on" for "sa"; both mean the same.
      (await zfs("get", "-Hp", "-o", "value", keys, `${one}/custom/default_v`)).replace(/^on$/m, "sa").split("\n"),
      ["legacy", "sa", "posix", "16384", "52428800", "52428800", "0"],
    );
    await api.ask("PATCH", "/storage-pools/one/volumes/custom/v", {
      config: { "zfs.use_refquota": "false", "zfs.reserve_space": "false", "zfs.blocksize": "" },
    });
    assert.deepEqual(
      (await zfs("get", "-Hp", "-o", "value", "recordsize,refquota,refreservation,quota", `${one}/custom/default_v`))
        .split("\n"),
      ["131072", "0", "0", "52428800"],
    );
    // ZFS allows neither "+" nor "@" in names.
    await api.volume("one", "a+b@c");
    await api.snapshot("one", "a+b@c", "x@y+z");
    assert.deepEqual(await api.snapshots("one", "a+b@c"), ["x@y+z"]);
    await api.delete("one", "a+b@c");
  });

  await step(t, "what cannot be is refused in words, and nothing is left of it", async () => {
    await run("mkfs.ext4", "-q", c);
    const other = zpool("other");
    await run("zpool", "create", "-m", "none", other, b);
    await zfs("create", `${other}/full`);
    await zfs("create", `${other}/full/inside`);
    const refused: [object, RegExp][] = [
      [{ "zfs.pool_name": one }, /Cannot create ZFS pool "[^"]+": pool already exists; source=/],
      [{ "zfs.pool_name": `${one}/x` }, /zfs\.pool_name can't point to a dataset when source isn't set/],
      [{ "zfs.pool_name": "mirror1" }, /Invalid ZFS pool name "mirror1"/],
      [{ size: "32MiB" }, /Invalid size "32MiB": at least 64\.00MiB are needed/],
      [{ source: one }, /ZFS dataset "[^"]+" is in use by the storage pool at "/],
      [{ source: `${one}/custom` }, /is in use by the storage pool at "/],
      [{ source: other }, /Provided ZFS pool \(or dataset\) isn't empty, run "sudo zfs list -r /],
      [{ source: `${other}/full` }, /Provided ZFS pool \(or dataset\) isn't empty/],
      [{ source: "lt-nosuch" }, /Cannot import ZFS pool "lt-nosuch": no such pool available/],
      [{ source: `${other}/x`, "zfs.pool_name": "y" }, /The source must match zfs\.pool_name if specified/],
      [{ source: `${other}/x`, size: "1GiB" }, /Cannot set "size" with source/],
      [{ source: c }, /Source "[^"]+" already holds ext4; set source\.wipe=true to overwrite it/],
      [{ source: `mirror=${a},${c}` }, /already holds ext4/],
      [{ source: b }, /already holds|is in use/],
      [{ source: small }, /is too small: it has 32MiB, ZFS needs 64MiB/],
      [{ source: "/dev/nosuch" }, /Source path '\/dev\/nosuch' doesn't exist/],
      [{ source: join(base, "a.img") }, /Custom loop file locations are not supported/],
      [{ source: `raidz2=${a},${c}` }, /raidz2 needs 3 devices, 2 are given/],
      [{ source: `raid5=${a}` }, /Unsupported ZFS vdev type "raid5"/],
      [{ "zfs.clone_copy": "maybe" }, /Invalid value for option "zfs\.clone_copy"/],
      [{ "zfs.create_options": "-o nosuch=1" }, /nosuch/],
    ];
    for (const [config, text] of refused) {
      await assert.rejects(api.pool("bad", config), text, JSON.stringify(config));
    }
    assert.deepEqual(readdirSync(join(daemon.directory, "disks")), ["one.img"]);
    assert.deepEqual(readdirSync(join(daemon.directory, "storage-pools")), ["one"]);
    assert.deepEqual(await names(other), [other, `${other}/full`, `${other}/full/inside`]);
    await assert.rejects(api.volume("one", "x", { "zfs.blocksize": "1000" }), /Value should be between 512B and 16MiB/);
    const half = { size: "500MiB", "zfs.reserve_space": "true" };
    await api.volume("one", "half", half);
    await assert.rejects(api.volume("one", "x", half), /Not enough space in the pool for the volume: out of space/);
    await api.delete("one", "half");
    await api.isWhole();
    await run("zpool", "destroy", other);
    await run("wipefs", "-a", b);
  });

  await step(t, "devices, a dataset and a pool that is there: made, found again, and given back", async () => {
    const mirror = zpool("mirror");
    await api.pool("mirror", { source: `mirror=${a},${c}`, "source.wipe": "true", "zfs.pool_name": mirror });
    await run("zpool", "create", "-m", "none", zpool("theirs"), b);
    await zfs("create", `${zpool("theirs")}/mine`);
    await api.pool("dataset", { source: `${zpool("theirs")}/lido` });
    for (const pool of ["mirror", "dataset"]) await api.volume(pool, "v");
    await run("zpool", "offline", mirror, a);
    assert.match(await daemon.ok("storage", "info", "mirror"), /DEGRADED/);
    await api.volume("mirror", "while-degraded");
    await run("zpool", "online", mirror, a);
    await run("zpool", "wait", "-t", "resilver", mirror);
    await run("zpool", "scrub", "-w", mirror);
    assert.match(await daemon.ok("storage", "info", "mirror"), /ONLINE; scrub repaired .* with 0 errors/);
    // A pool that is not imported is imported at the daemon's start.
    assert.equal(await daemon.terminate(), 0);
    await run("zpool", "export", mirror);
    await daemon.up();
    const letGo = async (stays: readonly string[], goes: readonly string[]) => {
      await daemon.ok("shutdown");
      await daemon.ended;
      const imported = (await run("zpool", "list", "-H", "-o", "name")).split("\n");
      assert.deepEqual([...stays, ...goes].filter((pool) => imported.includes(pool)), stays);
      await daemon.up();
    };
    // Exported when it is closed, unless zfs.export is false or the pool is foreign.
    await daemon.ok("storage", "set", "mirror", "zfs.export", "false");
    await letGo([mirror, zpool("theirs")], [zpool("one")]);
    for (const pool of await api.ask("GET", "/storage-pools?recursion=1")) {
      assert.equal(pool.status, "Created", pool.name);
    }
    await zfs("create", `${mirror}/foreign`);
    for (const name of ["v", "while-degraded"]) await api.delete("mirror", name);
    await assert.rejects(api.ask("DELETE", "/storage-pools/mirror"), /ZFS pool has leftover datasets: .*\/foreign/);
    await zfs("destroy", `${mirror}/foreign`);
    await api.ask("DELETE", "/storage-pools/mirror");
    await api.delete("dataset", "v");
    await api.ask("DELETE", "/storage-pools/dataset");
    assert.deepEqual(await names(zpool("theirs")), [zpool("theirs"), `${zpool("theirs")}/mine`]);
    await zfs("destroy", `${zpool("theirs")}/mine`);
    await api.pool("whole", { source: zpool("theirs") });
    await api.volume("whole", "v");
    await api.snapshot("whole", "v", "s0");
    await api.delete("whole", "v");
    await zfs("create", `${zpool("theirs")}/mine`);
    await letGo([zpool("theirs")], [zpool("one")]);
    await zfs("destroy", `${zpool("theirs")}/mine`);
    await letGo([], [zpool("theirs"), zpool("one")]);
    await api.ask("DELETE", "/storage-pools/whole");
    assert.deepEqual(await names(zpool("theirs")), [zpool("theirs")]);
    await run("zpool", "destroy", zpool("theirs"));
  });

  const work = `${one}/custom/default_work`;
  const write = (text: string) => api.within(work, (path) => writeFileSync(join(path, "file"), text));
  const read = (dataset = work) => api.within(dataset, (path) => readFileSync(join(path, "file"), "utf8"));

  await step(t, "a restore past later snapshots: refused, or with them and their records", async () => {
    await api.volume("one", "work");
    for (const [index, name] of ["s0", "s1", "s2"].entries()) {
      await write(`state ${index}`);
      await api.snapshot("one", "work", name);
    }
    await assert.rejects(
      api.restore("one", "work", "s0"),
      /^Error: Snapshot "s0" cannot be restored due to subsequent snapshot\(s\)\. Set zfs\.remove_snapshots to override$/,
    );
    assert.deepEqual([await read(), await api.snapshots("one", "work")], ["state 2", ["s0", "s1", "s2"]]);
    await api.ask("PATCH", "/storage-pools/one/volumes/custom/work", { config: { "zfs.remove_snapshots": "true" } });
    await api.restore("one", "work", "s1");
    assert.deepEqual([await read(), await api.snapshots("one", "work")], ["state 1", ["s0", "s1"]]);
    await api.isWhole();
  });

  await step(t, "a volume that somebody has mounted is not deleted, now or later", async () => {
    await api.within(`${work}@snapshot-s0`, async (path) => {
      await assert.rejects(
        api.delete("one", "work"),
        new RegExp(`Cannot delete custom volume "work": it is mounted at "${path}"$`),
      );
    });
    assert.equal(await daemon.terminate(), 0);
    await daemon.up();
    assert.deepEqual([await read(), await api.snapshots("one", "work")], ["state 1", ["s0", "s1"]]);
    await api.isWhole();
  });

  await step(t, "a copy keeps what it was cloned from, and lets it go", async () => {
    await api.copy("one", "work", "one", "clone", false);
    const clone = `${one}/custom/default_clone`;
    assert.match(await origin(clone), /@copy-/);
    // The clone's snapshot prevents a rollback: the volume is replaced by a clone of the wanted snapshot.
    await write("state 9");
    await api.restore("one", "work", "s1");
    assert.deepEqual([await read(), await read(clone)], ["state 1", "state 1"]);
    assert.deepEqual(await api.snapshots("one", "work"), ["s0", "s1"]);
    await api.restore("one", "work", "s0");
    assert.deepEqual([await read(), await api.snapshots("one", "work")], ["state 0", ["s0"]]);
    await api.isWhole();
    await api.delete("one", "work");
    assert.equal(await read(clone), "state 1");
    assert.ok((await names(`${one}/deleted/custom`)).length > 1);
    await api.delete("one", "clone");
    assert.deepEqual(await names(`${one}/deleted/custom`), [`${one}/deleted/custom`]);
    await api.isWhole();
  });

  await step(t, "zfs.clone_copy says what a copy shares, from the next copy on", async () => {
    await api.volume("one", "work");
    await write("shared");
    for (const [value, pattern] of [["true", /@copy-/], ["false", /^-$/], ["rebase", /^-$/]] as const) {
      await api.ask("PATCH", "/storage-pools/one", { config: { "zfs.clone_copy": value } });
      await api.copy("one", "work", "one", value, false);
      assert.match(await origin(`${one}/custom/default_${value}`), pattern, value);
      assert.equal(await read(`${one}/custom/default_${value}`), "shared");
      await api.delete("one", value);
    }
    assert.deepEqual(await names(work), [work]);
    await api.ask("PATCH", "/storage-pools/one", { config: { "zfs.clone_copy": "true" } });
  });

  await step(t, "a rebased copy shares with the image, over however many copies", async () => {
    await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
    await daemon.ok("init", "bb", "c1", "-s", "one");
    const image = await origin(`${one}/containers/c1`);
    assert.match(image, /\/images\/[0-9a-f]+@readonly$/);
    await api.ask("PATCH", "/storage-pools/one", { config: { "zfs.clone_copy": "rebase" } });
    for (const [from, to] of [["c1", "c2"], ["c2", "c3"]] as const) {
      await api.within(`${one}/containers/${from}`, (path) => writeFileSync(join(path, "rootfs/root", to), to));
      await daemon.ok("copy", from, to);
      assert.equal(await origin(`${one}/containers/${to}`), image);
    }
    await api.ask("PATCH", "/storage-pools/one", { config: { "zfs.clone_copy": "true" } });
    await daemon.ok("copy", "c3", "c4");
    await api.ask("PATCH", "/storage-pools/one", { config: { "zfs.clone_copy": "rebase" } });
    await daemon.ok("copy", "c4", "c5");
    assert.equal(await origin(`${one}/containers/c5`), image);
    await api.within(`${one}/containers/c5`, (path) => {
      assert.equal(readFileSync(join(path, "rootfs/root/c2"), "utf8"), "c2");
      assert.equal(readFileSync(join(path, "rootfs/root/c3"), "utf8"), "c3");
    });
    await api.ask("PATCH", "/storage-pools/one", { config: { "zfs.clone_copy": "true" } });
    await daemon.ok("delete", "c1", "c2", "c3", "c4", "c5");
    await daemon.ok("image", "delete", "bb");
    assert.deepEqual(await names(`${one}/deleted/images`), [`${one}/deleted/images`]);
    await api.isWhole();
  });

  const two = zpool("two");

  await step(t, "copies with snapshots, within the pool and to others, there and back", async () => {
    await api.pool("two", { size: "1GiB", "zfs.pool_name": two });
    await api.ask("POST", "/storage-pools", { name: "tree", driver: "dir", config: {} });
    await api.snapshot("one", "work", "s0");
    await write("later");
    await api.snapshot("one", "work", "s1");
    await write("latest");
    await api.copy("one", "work", "one", "within");
    await api.copy("one", "work", "two", "across");
    await api.copy("two", "across", "tree", "plain");
    await api.copy("tree", "plain", "two", "back");
    for (
      const dataset of [`${one}/custom/default_within`, `${two}/custom/default_across`, `${two}/custom/default_back`]
    ) {
      assert.equal(await read(dataset), "latest", dataset);
      assert.equal(await read(`${dataset}@snapshot-s0`), "shared", dataset);
      assert.equal(await read(`${dataset}@snapshot-s1`), "later", dataset);
      assert.deepEqual((await names(dataset)).length, 3, dataset);
      assert.equal(await origin(dataset), "-");
    }
    await api.isWhole();
    for (const name of ["across", "back"]) await api.delete("two", name);
    await api.delete("one", "within");
    await api.delete("tree", "plain");
    await api.ask("DELETE", "/storage-pools/tree");
  });

  /** Pids of commands that the daemon has started and that name `word`. */
  const commands = (start: readonly string[], word: string) =>
    readdirSync("/proc").filter((name) => /^\d+$/.test(name)).filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
        return start.every((one, index) => words[index] === one) && words.some((one) => one.startsWith(word));
      } catch {
        return false; // it has ended
      }
    }).map(Number);
  const receiver = async (atWork: () => boolean): Promise<number> => {
    for (;;) {
      const [pid] = commands(["zfs", "receive"], two);
      if (pid !== undefined) return pid;
      assert.ok(atWork(), "the transfer was over before it was seen");
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  };

  await step(t, "a transfer that is interrupted goes on where it stopped", async () => {
    await api.within(work, (path) => succeed(["dd", "if=/dev/urandom", `of=${path}/big`, "bs=1M", "count=150"]));
    let isOver = false;
    const copy = api.copy("one", "work", "two", "resumed", false).finally(() => isOver = true);
    const pid = await receiver(() => !isOver);
    // Interrupt it when it has received some data, but not all.
    const received = () => Number(/^rchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))![1]);
    while (received() < 20 * MiB) await new Promise((resolve) => setTimeout(resolve, 2));
    process.kill(pid, "SIGKILL");
    await copy;
    const sum = (dataset: string) =>
      api.within(dataset, (path) => run("sha256sum", `${path}/big`)).then((line) => line.split(" ")[0]);
    assert.equal(await sum(`${two}/custom/default_resumed`), await sum(work));
    assert.equal(await zfs("get", "-H", "-o", "value", "receive_resume_token", `${two}/custom/default_resumed`), "-");
    await api.delete("two", "resumed");
  });

  await step(t, "one that is cancelled leaves nothing", async () => {
    const { body } = await api.raw.ask("POST", "/1.0/storage-pools/two/volumes/custom", {
      name: "cancelled",
      type: "custom",
      source: { type: "copy", pool: "one", name: "work", volume_only: true },
    });
    await receiver(() => true);
    await api.raw.ask("DELETE", `/1.0/operations/${body.metadata.id}`);
    assert.equal((await api.raw.wait(body.metadata.id)).status, "Cancelled");
    assert.deepEqual(await names(`${two}/custom`), [`${two}/custom`]);
    assert.equal((await names(work)).some((name) => name.includes("transfer")), false);
    await api.isWhole();
  });

  await step(t, "a pool whose devices are gone is named, and the others go on", async (t) => {
    if (!await host.which("dmsetup")) return void await t.step({ name: "no dmsetup", ignore: true, fn: () => {} });
    const gone = zpool("gone"), table = (target: string) => `0 ${256 * 2048} ${target}`;
    await run("wipefs", "-a", b);
    await run("dmsetup", "create", gone, "--table", table(`linear ${b} 0`));
    undo.defer(async () => void await run("dmsetup", "remove", "-f", gone));
    await api.pool("gone", { source: `/dev/mapper/${gone}`, "zfs.pool_name": gone, "source.wipe": "true" });
    const load = async (target: string) => {
      await run("dmsetup", "suspend", "--noflush", gone);
      await run("dmsetup", "load", gone, "--table", table(target));
      await run("dmsetup", "resume", gone);
    };
    await load("error");
    const text = new RegExp(`ZFS pool "${gone}" is suspended: its devices do not answer; .*"zpool clear ${gone}"`);
    await assert.rejects(api.volume("gone", "x"), text);
    await assert.rejects(api.volume("gone", "y"), text);
    await api.volume("one", "meanwhile");
    await api.delete("one", "meanwhile");
    await load(`linear ${b} 0`);
    assert.equal((await api.ask("GET", "/storage-pools/gone")).status, "Unavailable");
    await run("zpool", "clear", gone);
    // The command that was blocked by the missing devices ends now; the dataset that it made belongs to no volume.
    while (commands(["zfs", "create"], gone).length > 0) await new Promise((resolve) => setTimeout(resolve, 20));
    await api.ask("POST", "/check", { repair: true });
    await api.isWhole();
    await api.volume("gone", "x");
    await api.delete("gone", "x");
    await api.ask("DELETE", "/storage-pools/gone");
  });

  await step(t, "a lost database, while a container runs: a look changes nothing, and all comes back", async () => {
    for (const { name } of await api.ask("GET", "/storage-pools?recursion=1")) {
      for (const volume of await api.ask("GET", `/storage-pools/${name}/volumes/custom?recursion=1`)) {
        if (!volume.name.includes("/")) await api.delete(name, volume.name);
      }
      if (name !== "one") await api.ask("DELETE", `/storage-pools/${name}`);
    }
    // A pool made by LXD has no mark: listing what can be recovered must not leave one either.
    const look = () => zfs("get", "-H", "-r", "-t", "filesystem,snapshot", "lido:pool,origin,mounted", one);
    await zfs("inherit", "lido:pool", one);
    await loseDatabase(daemon, "one", look);
    assert.match(await zfs("get", "-H", "-o", "value", "lido:pool", one), /^zpool \//);
    await api.isWhole();
  });
}
