/** Behaviour of LVM alone: volume groups of every kind and the refusals of each, full thin pools, devices that vanish, locks of other
 * processes. The suites that run on any driver test the rest. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { on, once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { WebSocket } from "ws";
import { createHost } from "../../../drivers/host/real.ts";
import { driverKinds } from "../../../drivers/storage/registry.ts";
import { command, succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { OperationEvents } from "../../support/progress.ts";
import { loopDevice } from "../../support/loop_device.ts";
import { loseDatabase } from "../../support/lost_pool.ts";
import { step, StorageRequests } from "../../support/storage_requests.ts";
import { withContent } from "../../support/volume_content.ts";

const MiB = 1024 * 1024;
const host = createHost();
const probed = await driverKinds.get("lvm")!.probe(host);
const run = (...argv: string[]) => succeed(argv, { timeoutMs: 120_000 });
/** A name for this process alone: names of volume groups are global. */
const groupOf = (name: string) => `lt-${process.pid}-${name}`;

if ("missing" in probed) {
  Deno.test({ name: `lvm: not on this host: ${probed.missing}`, ignore: true, fn: () => {} });
} else {
  Deno.test({ name: "lvm", fn: story, sanitizeResources: false });
}

async function story(t: Deno.TestContext): Promise<void> {
  await using undo = new AsyncDisposableStack();
  const base = mkdtempSync(join(tmpdir(), "lido-lvm-"));
  undo.defer(() => rmSync(base, { recursive: true, force: true }));
  const device = (name: string, sizeMiB = 512) => loopDevice(base, name, undo, sizeMiB);
  const [a, b, c, small] = [await device("a"), await device("b"), await device("c"), await device("small", 16)];
  await using daemon = await Daemon.start();
  const api = new StorageRequests(daemon.directory);
  const pool = (name: string, config: object) => api.makePool(name, "lvm", config);
  const report = (tool: string, columns: string, group: string) =>
    run(tool, "--noheadings", "--units", "b", "--nosuffix", "-o", columns, group).then((text) =>
      text.split("\n").map((line) => line.trim().split(/\s+/))
    );
  const group = groupOf("one");
  /** Waits for the pool: each request for it makes the daemon try to open it again. */
  const comesBack = async (name: string) => {
    const until = Date.now() + 120_000;
    while ((await api.ask("GET", `/storage-pools/${name}`)).status !== "Created") {
      assert.ok(Date.now() < until, `${name} does not come back`);
      await new Promise((wake) => setTimeout(wake, 500));
    }
  };
  const volumesIn = async (name: string) => (await report("lvs", "lv_name", name)).flat().filter(Boolean).sort();
  const config = {
    "lvm.vg_name": group,
    "volume.size": "64MiB",
    "lvm.thinpool_name": "MyThin",
    "lvm.thinpool_metadata_size": "8MiB",
  };

  await step(
    t,
    "a pool on a device: the group is tagged, names are LXD's, volumes active only while used",
    async () => {
      await pool("one", { ...config, source: a });
      const [[name, tags]] = await report("vgs", "vg_name,vg_tags", group) as [[string, string]];
      assert.equal(name, group);
      assert.match(tags, /^lido_pool_[0-9a-f]{12}$/);
      assert.deepEqual(await report("lvs", "lv_name,lv_metadata_size", group), [["MyThin", String(8 * MiB)]]);
      await api.volume("one", "with-dash");
      await api.snapshot("one", "with-dash", "s-0");
      assert.deepEqual(await volumesIn(group), [
        "MyThin",
        "custom_default_with--dash",
        "custom_default_with--dash-s--0",
      ]);
      // Inactive, and not activated by the host at boot.
      for (const [name, attributes] of await report("lvs", "lv_name,lv_attr", group)) {
        if (name !== "MyThin") assert.match(attributes!, /^V[rw]i---tz-k$/, name);
      }
      await api.delete("one", "with-dash");
      assert.deepEqual(await volumesIn(group), ["MyThin"]);
    },
  );

  await step(t, "what cannot be is refused in words, and nothing is left of it", async () => {
    const foreign = groupOf("foreign"), ours = groupOf("tagged");
    await run("vgcreate", foreign, b);
    await run("lvcreate", "--yes", "--size", "8M", "--name", "theirs", foreign);
    await run("mkfs.ext4", "-q", c);
    const refused: [object, RegExp][] = [
      [{ source: foreign }, /Volume group "[^"]+" is not empty: it has theirs; see lvm\.vg\.force_reuse/],
      [{ source: group }, /Volume group "[^"]+" is already used by a storage pool \(tag lido_pool_\w+\)/],
      [{ source: group, "lvm.vg.force_reuse": "true" }, /Volume group "[^"]+" is in use by storage pool "one"/],
      [{ "lvm.use_thinpool": "false", "lvm.thinpool_name": "x" }, /lvm\.use_thinpool cannot be set to a false value/],
      [
        { source: foreign, "lvm.vg.force_reuse": "true", "lvm.thinpool_name": "theirs" },
        /Logical volume "theirs" of volume group "[^"]+" is not a thin pool/,
      ],
      [{ source: groupOf("none") }, /The requested volume group "[^"]+" does not exist/],
      [{ source: foreign, "lvm.vg_name": "other" }, /Invalid combination of "source" and "lvm\.vg_name" property/],
      [{ "lvm.vg_name": foreign }, /A volume group already exists called "/],
      [{ source: foreign, size: "1GiB" }, /Cannot set "size" with source/],
      [{ source: c }, /Source "[^"]+" already holds ext4; set source\.wipe=true to overwrite it/],
      [{ source: b }, /already holds|is in use/],
      [{ source: small }, /Cannot use device "[^"]+": it has 16\.00MiB, at least 64\.00MiB are needed/],
      [{ size: "16MiB" }, /Cannot use size "16MiB": it has 16\.00MiB/],
      [{ source: "/dev/nosuch" }, /Source path '\/dev\/nosuch' doesn't exist/],
      [{ "lvm.vg_name": "-x" }, /Invalid volume group name "-x"/],
      [{ "lvm.thinpool_name": "a/b" }, /Invalid thin pool name "a\/b"/],
      [{ "volume.block.filesystem": "ntfs" }, /Invalid value "ntfs": ext4, xfs, btrfs are allowed/],
      [{ "lvm.use_thinpool": "maybe" }, /Invalid value/],
    ];
    for (const [wrong, text] of refused) await assert.rejects(pool("bad", wrong), text, JSON.stringify(wrong));
    // A disk with a partition table.
    await run("wipefs", "-a", c);
    await run("bash", "-c", `printf 'label: gpt\\n,64M\\n' | sfdisk -q --no-reread --no-tell-kernel ${c}`);
    await assert.rejects(pool("bad", { source: c }), /already holds gpt|already holds a partition table/i);
    await run("wipefs", "-a", c);
    assert.deepEqual(await volumesIn(foreign), ["theirs"]);
    assert.deepEqual(readdirSync(join(daemon.directory, "disks")), []);
    assert.deepEqual(readdirSync(join(daemon.directory, "storage-pools")), ["one"]);
    await api.isWhole();
    // By force a foreign group is used, and released with the volumes that it had and those that others made meanwhile.
    const forced = { source: foreign, "lvm.vg.force_reuse": "true", "volume.size": "64MiB" };
    const theirs = ["custom_default_theirs", "theirs"];
    await pool("forced", { ...forced, "lvm.use_thinpool": "false" });
    await api.volume("forced", "v");
    await run("lvcreate", "--yes", "--size", "8M", "--name", "custom_default_theirs", foreign);
    await api.delete("forced", "v");
    await api.ask("DELETE", "/storage-pools/forced");
    assert.deepEqual(await volumesIn(foreign), theirs);
    assert.deepEqual(await report("vgs", "vg_tags", foreign), [[""]]);
    // Not even by force: the volumes could be those of another pool.
    await assert.rejects(pool("bad", forced), /has volumes of another storage pool: custom_default_theirs/);
    assert.deepEqual(await volumesIn(foreign), theirs);
    await run("lvrename", foreign, "custom_default_theirs", "more");
    await pool("forced", forced);
    await api.volume("forced", "v");
    // When the pool is closed, the foreign volumes stay active.
    await daemon.ok("shutdown");
    await daemon.ended;
    const states = await report("lvs", "lv_name,lv_active", foreign);
    assert.deepEqual(states.filter(([, state]) => state === "active").map(([name]) => name), ["more", "theirs"]);
    await daemon.up();
    await api.delete("forced", "v");
    await api.ask("DELETE", "/storage-pools/forced");
    assert.deepEqual(await volumesIn(foreign), ["more", "theirs"]);
    await run("lvremove", "--yes", foreign);
    // In lido's own group, foreign volumes do not belong, but lido does not delete them.
    await run("lvcreate", "--yes", "--thin", "--virtualsize", "8M", "--name", "theirs", `${group}/MyThin`);
    await assert.rejects(api.ask("DELETE", "/storage-pools/one"), /has leftover logical volumes: theirs/);
    await run("lvremove", "--yes", `${group}/theirs`);
    await api.isWhole();
    // An empty group needs no force.
    await run("vgrename", foreign, ours);
    await pool("empty", { source: ours, "volume.size": "64MiB" });
    await api.ask("DELETE", "/storage-pools/empty");
    assert.deepEqual(await volumesIn(ours), []);
    await run("vgremove", "--yes", ours);
    await run("pvremove", "--yes", b);
  });

  await step(t, "stripes over two devices; the restore of a classic volume tells how far it is", async () => {
    const striped = groupOf("striped");
    await run("vgcreate", striped, b, c);
    await pool("striped", { source: striped, "lvm.use_thinpool": "false", "volume.size": "64MiB" });
    await api.volume("striped", "v", { "lvm.stripes": "2", "lvm.stripes.size": "64KiB" });
    assert.deepEqual(await report("lvs", "lv_name,stripes,stripe_size", striped), [
      ["custom_default_v", "2", "65536"],
    ]);
    await assert.rejects(api.volume("striped", "w", { "lvm.stripes": "3" }), /stripes|Number of stripes/i);
    await api.delete("striped", "v");
    await api.volume("striped", "work", { size: "256MiB" });
    const seen = await api.ask("GET", "/storage-pools/striped");
    const write = (text: string) =>
      withContent(daemon.directory, seen, { type: "custom", name: "default_work" }, async (path) => {
        await run("dd", "if=/dev/urandom", `of=${join(path, "data")}`, "bs=1M", "count=150", "conv=fsync");
        writeFileSync(join(path, "text"), text);
      }, true);
    await write("as it was");
    await api.snapshot("striped", "work", "s0");
    await write("as it became");
    {
      using events = await OperationEvents.open(daemon.directory);
      const { body } = await api.raw.ask("POST", "/1.0/storage-pools/striped/volumes/custom/work/snapshots/s0/restore");
      assert.match(
        String((await events.progress(body.metadata.id)).metadata?.fs_progress),
        /^work: (\d+% of )?[\d.]+([KMG]i)?B \([\d.]+([KMG]i)?B\/s/,
      );
      await api.restore("striped", "work", "s0");
    }
    await withContent(daemon.directory, seen, { type: "custom", name: "default_work" }, (path) => {
      assert.equal(readFileSync(join(path, "text"), "utf8"), "as it was");
    });
    await api.delete("striped", "work");
    await api.ask("DELETE", "/storage-pools/striped");
    await run("vgremove", "--yes", striped);
    await run("pvremove", "--yes", b, c);
  });

  await step(t, "a volume's size: grown and shrunk where its filesystem can", async () => {
    const sizeOf = async (name: string) =>
      Number((await report("lvs", "lv_size", `${group}/custom_default_${name}`))[0]![0]) / MiB;
    const resize = (name: string, size: string) =>
      api.ask("PATCH", `/storage-pools/one/volumes/custom/${name}`, { config: { size } });
    await api.volume("one", "ext4", { size: "128MiB" });
    await resize("ext4", "64MiB");
    assert.equal(await sizeOf("ext4"), 64);
    await resize("ext4", "96MiB");
    assert.equal(await sizeOf("ext4"), 96);
    const seen = await api.ask("GET", "/storage-pools/one");
    await withContent(daemon.directory, seen, { type: "custom", name: "default_ext4" }, async (path) => {
      await run("dd", "if=/dev/urandom", `of=${join(path, "data")}`, "bs=1M", "count=60", "conv=fsync");
    }, true);
    await assert.rejects(resize("ext4", "48MiB"), /Cannot shrink custom volume "ext4" to 48\.00MiB/);
    assert.equal(await sizeOf("ext4"), 96);
    await api.volume("one", "xfs", { size: "320MiB", "block.filesystem": "xfs" });
    await assert.rejects(resize("xfs", "304MiB"), /Cannot shrink custom volume "xfs".*: Cannot be shrunk/);
    await resize("xfs", "340MiB");
    assert.equal(await sizeOf("xfs"), 340);
    await api.isWhole();
    for (const name of ["ext4", "xfs"]) await api.delete("one", name);
  });

  const holdLock = async () => {
    const holder = spawn("flock", [`/run/lock/lvm/V_${group}`, "sh", "-c", "echo held; read line"]);
    await once(holder.stdout, "data");
    return holder;
  };

  await step(t, "another process has the group's lock: it is waited for", async () => {
    const holder = await holdLock();
    let isDone = false;
    const waiting = api.volume("one", "waits").then(() => isDone = true);
    // Other pools are served meanwhile.
    await api.makePool("tree", "dir", {});
    await api.volume("tree", "v");
    assert.equal(isDone, false);
    holder.stdin.end("\n");
    await once(holder, "exit");
    await waiting;
    await api.delete("one", "waits");
  });

  await step(t, "and it does not keep the daemon from its other pools when it starts", async () => {
    assert.equal(await daemon.terminate(), 0);
    const holder = await holdLock();
    await daemon.up();
    const { status, reason } = await api.ask("GET", "/storage-pools/one");
    assert.equal(status, "Unavailable");
    assert.match(reason, /volume group "[^"]+" is locked by process \d+ \((sh|flock)\)/);
    await api.volume("tree", "meanwhile");
    await api.delete("tree", "meanwhile");
    holder.stdin.end("\n");
    await once(holder, "exit");
    await comesBack("one");
    await api.volume("one", "again");
    await api.delete("one", "again");
  });

  await step(t, "a lost database, while a container runs: a look changes nothing, and all comes back", async () => {
    await loseDatabase(daemon, "one", () => report("lvs", "lv_name,lv_active,vg_tags,lv_tags", group));
    await api.isWhole();
  });

  await step(t, "a thin pool that runs full: warned of, nothing made from 98 % on, a copy leaves nothing", async () => {
    await api.volume("one", "data", { size: "400MiB" });
    const seen = (await api.ask("GET", "/storage-pools?recursion=1")).find(({ name }: { name: string }) =>
      name === "one"
    );
    const fill = (name: string, mebibytes: number) =>
      withContent(daemon.directory, seen, { type: "custom", name: `default_${name}` }, async (path) => {
        await run("dd", "if=/dev/urandom", `of=${join(path, "f")}`, "bs=1M", `count=${mebibytes}`, "conv=fsync");
      }, true);
    await api.volume("one", "second", { size: "256MiB" });
    await fill("data", 300);
    // Listen before the copy: it fills the pool for a moment, and may cross the threshold just when the daemon checks.
    const filled = filling(daemon.directory, "95");
    // A copy by files into the same pool does not fit; one that shares blocks does.
    await api.volume("tree", "big");
    await run(
      "dd",
      "if=/dev/urandom",
      `of=${daemon.directory}/storage-pools/tree/custom/default_big/f`,
      "bs=1M",
      "count=250",
    );
    await assert.rejects(
      api.volume("one", "copied", { size: "300MiB" }, { type: "copy", pool: "tree", name: "big" }),
      /^Error: No space left on device: thin pool "MyThin" of storage pool "one" is full$/,
    );
    assert.deepEqual((await volumesIn(group)).filter((name) => name.includes("copied")), []);
    await api.isWhole();
    await api.volume("tree", "meanwhile");
    await api.delete("tree", "meanwhile");
    // Fill the pool up to its last blocks.
    const total = Number((await report("lvs", "lv_size", `${group}/MyThin`))[0]![0]) / MiB;
    const used = Number((await report("lvs", "data_percent", `${group}/MyThin`))[0]![0]) / 100 * total;
    await fill("second", Math.floor(total * 0.985 - used));
    await assert.rejects(
      api.volume("one", "more"),
      /Storage pool "one" has no room for more: 9\d % of the data of thin pool "MyThin" is used, from 98 % on nothing is/,
    );
    await assert.rejects(api.snapshot("one", "data", "s0"), /has no room for more/);
    // Each crossed threshold has one event, and the list of warnings follows: the daemon checks every ten seconds.
    const passed = await filled;
    assert.deepEqual([passed.of, passed.threshold], ["data", "95"]);
    const warnings = async () =>
      (await api.ask("GET", "/warnings?recursion=1")).map((one: { last_message: string }) => one.last_message);
    const isListed = async () =>
      /^9\d(\.\d)? % of the data of storage pool "one" is used$/m.test((await warnings()).join("\n"));
    for (const until = Date.now() + 60_000; !await isListed();) {
      assert.ok(Date.now() < until, (await warnings()).join("\n"));
      await new Promise((wake) => setTimeout(wake, 500));
    }
    assert.match(await daemon.ok("storage", "info", "one"), /9\d % of data, \d+ % of metadata used/);
    for (const name of ["data", "second"]) await api.delete("one", name);
    await api.volume("one", "again");
    await api.delete("one", "again");
    await api.isWhole();
  });
  await api.ask("DELETE", "/storage-pools/one");

  await step(t, "a pool whose device is gone: it is told, and the others go on", async () => {
    const gone = groupOf("gone"), table = (target: string) => `0 ${511 * 2048} ${target}`;
    // Not from the beginning of the disk: LVM would find its label on both devices.
    const linear = `linear ${b} 2048`;
    await run("wipefs", "-a", b);
    await run("dmsetup", "create", gone, "--table", table(linear));
    undo.defer(async () => void await command(["dmsetup", "remove", "-f", gone]));
    const load = async (target: string) => {
      await run("dmsetup", "suspend", "--noflush", "--nolockfs", gone);
      await run("dmsetup", "load", gone, "--table", table(target));
      await run("dmsetup", "resume", gone);
    };
    await pool("gone", {
      source: `/dev/mapper/${gone}`,
      "lvm.vg_name": `${gone}-vg`,
      "volume.size": "64MiB",
      "source.wipe": "true",
    });
    await api.volume("gone", "v");
    await load("error");
    await assert.rejects(
      api.volume("gone", "x"),
      /^Error: Storage pool "gone" is unavailable: Thin pool "LXDThinPool" of volume group "[^"]+" has failed: one of its devices/,
    );
    await api.volume("tree", "meanwhile");
    await api.delete("tree", "meanwhile");
    assert.match(await daemon.ok("storage", "list"), /gone/);
    await load(linear);
    // The kernel has disabled the thin pool: the daemon must activate it anew.
    await comesBack("gone");
    await api.volume("gone", "y");
    await api.isWhole();
    for (const name of ["v", "y"]) await api.delete("gone", name);
    await api.ask("DELETE", "/storage-pools/gone");
  });
}

/** @returns Context of the event by which a pool reports a crossed threshold. */
async function filling(directory: string, threshold: string): Promise<Record<string, string>> {
  const socket = new WebSocket(`ws+unix:${directory}/unix.socket:/1.0/events?type=lifecycle`);
  try {
    for await (const [data] of on(socket, "message", { signal: AbortSignal.timeout(600_000) })) {
      const { action, context } = JSON.parse(String(data)).metadata;
      if (action === "storage-pool-filling" && context.threshold === threshold) return context;
    }
    throw new Error("the events ended");
  } finally {
    socket.terminate();
  }
}
