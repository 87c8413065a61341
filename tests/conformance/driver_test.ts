/** The behaviour of every storage driver, core and facets. An absent facet must have a reason. */
import assert from "node:assert/strict";
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { AlreadyThere, type Driver, type Facets, type Volume } from "../../drivers/storage/driver.ts";
import { host, type Opened, places, reasonAgainst, withPool } from "./places.ts";
import { succeed } from "../support/command.ts";

const volume: Volume = { type: "custom", name: "default_v1" };
const other: Volume = { type: "custom", name: "default_v2" };
const MiB = 1024n * 1024n;

const cases: Record<string, (opened: Opened) => Promise<void>> = {
  async "create() makes an empty volume with the owner and mode that were asked for"({ driver }) {
    await driver.create(volume, { uid: 1000, gid: 1001, mode: 0o750 });
    await checkUnmounted(driver, volume);
    await driver.mount(volume);
    await driver.mount(volume);
    const info = lstatSync(driver.path(volume));
    assert.deepEqual([info.uid, info.gid, info.mode & 0o7777], [1000, 1001, 0o750]);
    assert.deepEqual(readdirSync(driver.path(volume)).filter((name) => name !== "lost+found"), []);
    await driver.unmount(volume);
    await driver.unmount(volume);
    await checkUnmounted(driver, volume);
    assert.deepEqual(await driver.leftovers(), []);
    assert.equal(await driver.exists(volume), true);
    assert.equal(await driver.exists(other), false);
  },

  async "create() of what is there fails and leaves it as it was"({ driver }) {
    await make(driver, volume);
    writeFileSync(join(driver.path(volume), "kept"), "1");
    await assert.rejects(driver.create(volume), AlreadyThere);
    assert.equal(readFileSync(join(driver.path(volume), "kept"), "utf8"), "1");
  },

  async "nothing is made in the place of another, whoever made that"({ driver, reopen }) {
    const { snapshot, send } = driver.facets;
    for (const [one, text] of [[volume, "its own"], [other, "another's"]] as const) await keep(driver, one, text);
    if (snapshot) { for (const one of [volume, other]) await snapshot.create({ ...one, snapshot: "s0" }); }
    await keep(driver, volume, "later");
    if (snapshot) await snapshot.create({ ...volume, snapshot: "s1" });
    assert.equal(await driver.isTaken(other), true);
    assert.equal(await driver.isTaken({ ...volume, name: "default_v3" }), false);
    const before = await contents(driver);
    // Also by a driver that did not make the volumes itself.
    for (const one of [driver, await reopen()]) {
      const { snapshot, clone } = one.facets;
      await assert.rejects(one.create(other), AlreadyThere);
      await assert.rejects(one.rename(volume, other.name), AlreadyThere);
      if (clone) await assert.rejects(clone.clone(volume, other), AlreadyThere);
      if (clone?.carriesSnapshots) {
        await assert.rejects(clone.clone(volume, { ...other, snapshot: "s0" }), AlreadyThere);
      }
      if (!snapshot) continue;
      await assert.rejects(snapshot.create({ ...volume, snapshot: "s0" }), AlreadyThere);
      await assert.rejects(snapshot.rename({ ...volume, snapshot: "s1" }, "s0"), AlreadyThere);
    }
    if (send) {
      const { stream, done } = send.send({ ...volume, snapshot: "s0" });
      const [received] = await Promise.allSettled([send.receive(other, stream), done]);
      assert.ok(received.status === "rejected" && received.reason instanceof AlreadyThere, JSON.stringify(received));
    }
    assert.deepEqual(await contents(driver), before);
    assert.deepEqual(await driver.leftovers(), []);
  },

  async "snapshots without their volume take its name, where there can be such"({ driver }) {
    const stranger = driver.path({ ...volume, snapshot: "s0" });
    if (driver.mountsVolumes) return; // a snapshot's name contains its volume's
    mkdirSync(stranger, { recursive: true });
    writeFileSync(join(stranger, "kept"), "1");
    assert.equal(await driver.exists(volume), false);
    assert.equal(await driver.isTaken(volume), true);
    await driver.create(volume);
    await assert.rejects(driver.facets.snapshot!.create({ ...volume, snapshot: "s0" }), AlreadyThere);
    await driver.create(other);
    await driver.facets.snapshot!.create({ ...other, snapshot: "s1" });
    await driver.delete({ type: "custom", name: "default_none" });
    await assert.rejects(driver.rename(other, volume.name), AlreadyThere);
    assert.deepEqual(await driver.facets.snapshot!.list(other), ["s1"]);
    assert.equal(readFileSync(join(stranger, "kept"), "utf8"), "1");
  },

  async "delete() takes data and snapshots, and may be called twice"({ driver }) {
    await make(driver, volume);
    fill(driver.path(volume));
    await driver.facets.snapshot?.create({ ...volume, snapshot: "s0" });
    await driver.delete(volume);
    await driver.delete(volume);
    assert.equal(await driver.exists(volume), false);
    assert.deepEqual(await driver.list(), []);
  },

  async "rename() takes the snapshots along"({ driver }) {
    await make(driver, volume);
    fill(driver.path(volume));
    await driver.facets.snapshot?.create({ ...volume, snapshot: "s0" });
    await driver.rename(volume, other.name);
    assert.equal(await driver.exists(volume), false);
    await checkUnmounted(driver, volume);
    await driver.mount(other);
    checkFilled(driver.path(other));
    if (driver.facets.snapshot) assert.deepEqual(await driver.facets.snapshot.list(other), ["s0"]);
  },

  async "list() names every volume and snapshot"({ driver }) {
    const all: Volume[] = [{ type: "container", name: "c1" }, volume, { type: "image", name: "f".repeat(64) }];
    for (const one of all) await driver.create(one);
    if (driver.facets.snapshot) {
      await driver.facets.snapshot.create({ ...volume, snapshot: "s0" });
      all.push({ ...volume, snapshot: "s0" });
    }
    const key = (one: Volume) => `${one.type}/${one.name}/${one.snapshot ?? ""}`;
    assert.deepEqual((await driver.list()).map(key).sort(), all.map(key).sort());
  },

  async "close() and open() keep the data and leave nothing mounted between"({ driver, reopen, pool }) {
    await make(driver, volume);
    fill(driver.path(volume));
    await driver.close();
    assert.equal(await host.mounts.at(pool.root), undefined);
    assert.deepEqual(await host.loops.find(pool.diskFile), []);
    assert.deepEqual((await host.mounts.list()).filter(({ target }) => target.startsWith(pool.root)), []);
    const again = await reopen();
    await again.mount(volume);
    checkFilled(again.path(volume));
  },

  async "destroy() may be called twice and leaves no mount, device or file"({ driver, kind, pool }) {
    await make(driver, volume);
    fill(driver.path(volume));
    await kind.destroy(host, pool);
    await kind.destroy(host, pool);
    assert.equal(await host.mounts.at(pool.root), undefined);
    assert.deepEqual(await host.loops.find(pool.diskFile), []);
    assert.deepEqual([existsSync(pool.root), existsSync(pool.diskFile)], [false, false]);
  },

  async "resources() tells used and total"({ driver }) {
    await driver.create(volume);
    const { space } = await driver.resources();
    assert.ok(space.used > 0n && space.used < space.total, `${space.used} of ${space.total}`);
  },

  async "the snapshot facet keeps a moment, is renamed, restored and deleted"({ driver }) {
    const snapshots = need(driver, "snapshot");
    if (!snapshots) return;
    await make(driver, volume);
    const path = driver.path(volume);
    fill(path);
    const s0 = { ...volume, snapshot: "s0" };
    await snapshots.create(s0);
    writeFileSync(join(path, "file"), "changed");
    writeFileSync(join(path, "new"), "new");
    await driver.mount(s0);
    checkFilled(driver.path(s0));
    // The volume, mounted beside its snapshot, keeps its own content.
    assert.equal(readFileSync(join(path, "file"), "utf8"), "changed");
    if (driver.mountsVolumes) {
      assert.throws(() => writeFileSync(join(driver.path(s0), "file"), ""), { code: "EROFS" });
    }
    await driver.unmount(s0);
    await checkUnmounted(driver, s0);
    await snapshots.rename(s0, "s1");
    const s1 = { ...volume, snapshot: "s1" };
    assert.deepEqual(await snapshots.list(volume), ["s1"]);
    await snapshots.restore(s1);
    await snapshots.afterRestore({ type: s1.type, name: s1.name });
    await driver.mount(volume);
    checkFilled(path);
    assert.deepEqual(await snapshots.list(volume), ["s1"]);
    assert.deepEqual(await driver.leftovers(), []);
    assert.equal(existsSync(join(path, "new")), false);
    await snapshots.delete(s1);
    await snapshots.delete(s1);
    assert.deepEqual(await snapshots.list(volume), []);
    checkFilled(path);
  },

  async "the clone facet copies a volume and a snapshot; both go their own ways"({ driver }) {
    const clone = need(driver, "clone");
    if (!clone) return;
    await make(driver, volume);
    fill(driver.path(volume));
    await clone.clone(volume, other);
    await checkUnmounted(driver, other);
    await driver.mount(other);
    checkFilled(driver.path(other));
    writeFileSync(join(driver.path(other), "file"), "changed");
    checkFilled(driver.path(volume));
    await driver.facets.snapshot!.create({ ...volume, snapshot: "s0" });
    const third = { ...volume, name: "default_v3" };
    await clone.clone({ ...volume, snapshot: "s0" }, third);
    await driver.delete(volume);
    await driver.mount(third);
    checkFilled(driver.path(third));
    writeFileSync(join(driver.path(third), "written"), "");
  },

  async "the quota facet limits, tells, and is lifted again"({ driver, kind, limitMiB }) {
    const quota = need(driver, "quota");
    if (!quota) return;
    const sizeBytes = BigInt(limitMiB) * MiB;
    await driver.create(volume, { sizeBytes });
    assert.equal(await quota.get(volume), sizeBytes);
    await driver.mount(volume);
    const path = driver.path(volume);
    await assert.rejects(write(path, 2 * limitMiB));
    const used = await quota.usedBytes(volume);
    assert.ok(used > sizeBytes / 4n && used <= sizeBytes + MiB, String(used));
    if (kind.isBlock) {
      await quota.set(volume, undefined);
      assert.equal(await quota.get(volume), sizeBytes);
      await quota.set(volume, 2n * sizeBytes); // grow it while it is mounted
      assert.equal(await quota.get(volume), 2n * sizeBytes);
      // Filesystems differ in how much of the new size is for data: at least half of it must be.
      await assert.rejects(write(path, 4 * limitMiB));
      const grown = await quota.usedBytes(volume);
      assert.ok(grown > used + sizeBytes / 2n && grown <= 2n * sizeBytes + MiB, `${used}, then ${grown}`);
    } else {
      await quota.set(volume, undefined);
      assert.equal(await quota.get(volume), undefined);
      await write(path, limitMiB * 3 / 2);
    }
  },

  async "the quota facet does not shrink below what is used, except to undo"({ driver }) {
    const quota = need(driver, "quota");
    if (!quota || driver.mountsVolumes) return; // the driver's tools have rules of their own
    await driver.create(volume);
    await write(driver.path(volume), 24);
    await assert.rejects(
      quota.set(volume, 16n * MiB),
      /Cannot limit custom volume "v1" to 16\.00MiB: it uses [\d.]+MiB/,
    );
    assert.equal(await quota.get(volume), undefined);
    await quota.set(volume, 64n * MiB);
    await assert.rejects(quota.set(volume, 16n * MiB), /Cannot limit/);
    assert.equal(await quota.get(volume), 64n * MiB);
    await quota.set(volume, 16n * MiB, { evenBelowUse: true });
    assert.equal(await quota.get(volume), 16n * MiB);
  },

  async "a quota is a volume's own: not its copy's, kept by restore and rename, gone with it"({ driver }) {
    const quota = need(driver, "quota");
    if (!quota || driver.mountsVolumes) return; // the driver's tools have rules of their own
    await driver.create(volume, { sizeBytes: 32n * MiB });
    const s0 = { ...volume, snapshot: "s0" };
    await write(driver.path(volume), 8);
    await driver.facets.snapshot!.create(s0);
    if (driver.facets.clone) {
      await driver.facets.clone.clone(volume, other);
      assert.equal(await quota.get(other), undefined);
      await write(driver.path(other), 48);
      assert.ok(await quota.usedBytes(volume) < 9n * MiB, "the copy's files are not the source's");
      const third = { ...volume, name: "default_v3" };
      await assert.rejects(driver.facets.clone.clone(volume, third, { sizeBytes: 4n * MiB }), /Cannot limit/);
      await driver.delete(third);
      await driver.facets.clone.clone(volume, third, { sizeBytes: 16n * MiB });
      assert.equal(await quota.get(third), 16n * MiB);
      await driver.delete(third);
      await driver.delete(other);
    }
    await driver.facets.snapshot!.restore(s0);
    await driver.facets.snapshot!.afterRestore(volume);
    assert.equal(await quota.get(volume), 32n * MiB);
    await driver.rename(volume, other.name);
    assert.equal(await quota.get(other), 32n * MiB);
    await assert.rejects(write(driver.path(other), 64));
    await driver.delete(other);
    await driver.create(other);
    assert.equal(await quota.get(other), undefined);
  },

  async "the send facet carries a snapshot to another volume"({ driver }) {
    const send = need(driver, "send");
    if (!send) return;
    await make(driver, volume);
    fill(driver.path(volume));
    await driver.facets.snapshot!.create({ ...volume, snapshot: "s0" });
    const { stream, done } = send.send({ ...volume, snapshot: "s0" });
    await send.receive(other, stream);
    await done;
    await checkUnmounted(driver, other);
    await driver.mount(other);
    checkFilled(driver.path(other));
    writeFileSync(join(driver.path(other), "written"), "");
    await driver.delete(other);
    assert.deepEqual((await driver.list()).filter((one) => one.name === other.name), []);
  },

  async "the resize facet grows the pool and refuses to shrink it"({ driver }) {
    const resize = need(driver, "resize");
    if (!resize) return;
    const before = (await driver.resources()).space.total;
    await resize.grow(1024n * MiB);
    assert.ok((await driver.resources()).space.total > before);
    await assert.rejects(resize.grow(512n * MiB), /Cannot shrink/);
  },

  async "the health facet says that a fresh pool is well"({ driver }) {
    const health = need(driver, "health");
    if (health) assert.equal((await health.check()).ok, true);
  },
};

// A pattern that selects places by name: in the guest of tests/vm each driver has a machine of its own.
const wanted = new RegExp(process.env.LIDO_TEST_PLACES ?? "");

for (const place of places.filter(({ name }) => wanted.test(name))) {
  const reason = await reasonAgainst(place);
  if (reason !== undefined) {
    Deno.test({ name: `${place.name}: not on this host: ${reason}`, ignore: true, fn: () => {} });
    continue;
  }
  for (const [name, test] of Object.entries(cases)) {
    Deno.test({
      name: `${place.name}: ${name}`,
      fn: () => withPool(place, test),
      sanitizeResources: false,
    });
  }
}

/** Writes the volume's one file; creates the volume if it does not exist. */
async function keep(driver: Driver, volume: Volume, text: string): Promise<void> {
  if (!await driver.exists(volume)) await driver.create(volume);
  await driver.mount(volume);
  writeFileSync(join(driver.path(volume), "kept"), text);
  await driver.unmount(volume);
}

/** Content of the one file of every volume and snapshot. */
async function contents(driver: Driver): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const one of await driver.list()) {
    await driver.mount(one);
    found[`${one.name}/${one.snapshot ?? ""}`] = readFileSync(join(driver.path(one), "kept"), "utf8");
    await driver.unmount(one);
  }
  return found;
}

async function make(driver: Driver, volume: Volume): Promise<void> {
  await driver.create(volume);
  await driver.mount(volume);
}

/** Asserts that nothing is mounted at the volume's path, if each volume is a filesystem of its own. */
async function checkUnmounted(driver: Driver, volume: Volume): Promise<void> {
  assert.equal(await host.mounts.at(driver.path(volume)), undefined);
}

function need<Name extends keyof Facets>(driver: Driver, name: Name): Facets[Name] | undefined {
  const facet = driver.facets[name];
  if (!facet) assert.match(driver.absent[name] ?? "", /\w+ \w+/, `facet "${name}" is absent without a reason`);
  return facet;
}

/** Writes as a container's root would: without CAP_SYS_RESOURCE, which bypasses the limits of ext4. */
async function write(directory: string, mebibytes: number): Promise<void> {
  const without = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"];
  const to = [`of=${join(directory, "big")}`, "bs=1M", `count=${mebibytes}`, "conv=fsync", "status=none"];
  await succeed([...without, "dd", "if=/dev/urandom", ...to]);
}

function fill(path: string): void {
  writeFileSync(join(path, "file"), "content");
  linkSync(join(path, "file"), join(path, "hard"));
  symlinkSync("/etc/shadow", join(path, "link"));
  mkdirSync(join(path, "deep/er"), { recursive: true });
  writeFileSync(join(path, "deep/er/setuid"), "x");
  chownSync(join(path, "deep/er/setuid"), 100000, 100001);
  chmodSync(join(path, "deep/er/setuid"), 0o4755);
}

function checkFilled(path: string): void {
  assert.equal(readFileSync(join(path, "file"), "utf8"), "content");
  assert.equal(lstatSync(join(path, "hard")).ino, lstatSync(join(path, "file")).ino);
  assert.equal(lstatSync(join(path, "link")).isSymbolicLink(), true);
  const info = lstatSync(join(path, "deep/er/setuid"));
  assert.deepEqual([info.uid, info.gid, info.mode & 0o7777], [100000, 100001, 0o4755]);
}
