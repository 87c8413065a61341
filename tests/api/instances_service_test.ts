import assert from "node:assert/strict";
import { LidoError } from "../../api/errors.ts";
import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import { instancePutSchema, instancesPostSchema, instanceStatePutSchema } from "../../api/types.ts";
import { disksOf } from "../../server/config/devices.ts";
import { formatIdmap } from "../../server/ids/idmaps.ts";
import { OperationLocks } from "../../server/instances/locks.ts";
import type { Operation } from "../../server/operations/operations.ts";
import { slowness } from "../support/slowness.ts";
import { fingerprint, makeWorld, type World } from "./instances_support.ts";

const state = (action: string, more: Record<string, unknown> = {}) => instanceStatePutSchema.parse({ action, ...more });
const stopNow = state("stop", { force: true });

async function start(world: World, name: string): Promise<void> {
  await world.done(world.instances.setState(name, state("start")));
}

async function change(world: World, name: string, more: { config?: object; devices?: object }): Promise<void> {
  const now = world.instances.get(name);
  await world.done(world.instances.update(
    name,
    instancePutSchema.parse({
      ...now,
      config: { ...now.config, ...more.config },
      devices: more.devices ?? now.devices,
    }),
  ));
}

const volume = (source: string, path: string) => ({ type: "disk", pool: "p", source, path });

Deno.test("create, start, stop, delete: settings, template, volatile keys, nothing left", async () => {
  await using world = await makeWorld();
  await world.create("c1", { config: { "user.a": "b", "environment.X": "1" } });
  let c1 = world.instances.get("c1");
  assert.equal(c1.status, "Stopped");
  assert.equal(c1.architecture, "x86_64");
  assert.deepEqual(c1.profiles, ["default"]);
  assert.equal(c1.config["image.os"], "busybox");
  assert.equal(c1.config["volatile.base_image"], fingerprint);
  assert.equal(c1.config["volatile.idmap.base"], "0");
  assert.equal(c1.config["volatile.last_state.idmap"], "[]");
  assert.equal(c1.expanded_devices.root!.pool, "p");

  await start(world, "c1");
  c1 = world.instances.get("c1");
  assert.equal(c1.status_code, 103);
  assert.equal(c1.config["volatile.last_state.power"], "RUNNING");
  assert.equal(c1.config["volatile.apply_template"], undefined);
  assert.equal(await readFile(join(world.root, "container/c1/rootfs/etc/hostname"), "utf8"), "c1\n");
  const specification = world.runtime.started.get("c1")!;
  assert.equal(specification.rootfsShifted, true);
  assert.deepEqual(specification.environment, { container: "lxc", X: "1" });
  assert.equal((await world.instances.state("c1")).processes, 2);
  await assert.rejects(start(world, "c1"), /^Error: The instance is already running: "c1"$/);
  assert.throws(() => world.instances.delete("c1"), /Instance is running/);
  assert.throws(() => world.instances.get("c2"), /Instance not found/);

  await world.done(world.instances.setState("c1", stopNow));
  assert.equal(world.instances.get("c1").config["volatile.last_state.power"], "STOPPED");
  await assert.rejects(world.done(world.instances.setState("c1", stopNow)), /already stopped/);
  await world.done(world.instances.delete("c1"));
  assert.deepEqual(world.instances.names(), []);
  await assert.rejects(access(join(world.root, "container/c1")));
  await assert.rejects(access(join(world.root, "logs/c1")));
  assert.deepEqual(world.database.all("SELECT * FROM journal"), []);
});

Deno.test("create refuses with LXD's texts and leaves nothing", async () => {
  await using world = await makeWorld();
  const post = (more: object) => world.create("c1", { source: { type: "image", alias: "bb" }, ...more });
  await assert.rejects(post({ name: "1a" }), /Invalid instance name: Name must not start with a number/);
  await assert.rejects(post({ name: "a/b" }), /The character "\/" is reserved for snapshots/);
  await assert.rejects(post({ source: { type: "image", alias: "no" } }), /Image not found/);
  await assert.rejects(post({ source: { type: "zork" } }), /Unknown source type zork/);
  await assert.rejects(post({ source: { type: "image" } }), /Must specify one of alias, fingerprint or properties/);
  await assert.rejects(post({ profiles: ["no"] }), /Requested profile "no" doesn't exist/);
  await assert.rejects(
    post({ type: "virtual-machine" }),
    /type "container" doesn't match instance type "virtual-machine"/,
  );
  await assert.rejects(post({ architecture: "zork" }), /Architecture isn't supported: zork/);
  await assert.rejects(
    post({ config: { foo: "x" } }),
    /^Error: Failed creating instance record: Unknown configuration key: foo: boot\.\*, .*limits\.\*.* are allowed$/,
  );
  await assert.rejects(
    post({ profiles: [] }),
    /^Error: Failed creating instance record: Failed initialising instance: Failed getting root disk: No root device/,
  );
  await assert.rejects(
    post({ devices: { root: { type: "disk", path: "/", pool: "no" } } }),
    /^Error: Failed loading storage pool "no": Storage pool not found$/,
  );
  await assert.rejects(
    post({ devices: { a: volume("no", "/mnt") } }),
    /Failed loading custom volume: Storage volume not found/,
  );
  await assert.rejects(post({ config: { "raw.idmap": "both 1000005 5" } }), /Host id is in the range of subids/);
  assert.deepEqual(world.instances.names(), []);

  world.pool.failCreate = new Error("No space left on device");
  await assert.rejects(post({}), /No space left/);
  assert.deepEqual(world.instances.names(), []);
  await assert.rejects(access(join(world.root, "container/c1")));
  delete world.pool.failCreate;
  await world.create("c1");
  await assert.rejects(world.create("c1"), /This "instances" entry already exists: "c1"$/);
  assert.deepEqual(world.instances.names(), ["c1"], "the loser must not take the winner's instance away");
  await access(join(world.root, "container/c1"));
});

Deno.test("an instance without a name gets one", async () => {
  await using world = await makeWorld();
  await world.done(world.instances.create(instancesPostSchema.parse({ source: { type: "none" }, start: true })));
  assert.match(world.instances.names()[0]!, /^[a-z]+-[a-z]+$/);
  assert.equal(world.instances.list()[0]!.status, "Running");
});

Deno.test("a second change is refused while one runs", async () => {
  await using world = await makeWorld();
  await world.create("c1");
  const first = world.instances.setState("c1", state("start"));
  const second = world.instances.setState("c1", state("start"));
  await assert.rejects(
    world.done(second),
    /Failed to create instance start operation: Instance is busy running a "start" operation/,
  );
  await world.done(first);
});

Deno.test("a clean stop that is not followed times out, and a container that ends by itself is noticed", async () => {
  await using world = await makeWorld();
  await world.create("c1");
  await start(world, "c1");
  await assert.rejects(
    world.done(world.instances.setState("c1", state("stop", { timeout: 1 }))),
    /Failed shutting down instance, status is "Running": context deadline exceeded/,
  );
  assert.equal(world.instances.get("c1").status, "Running");
  world.runtime.end("c1");
  await world.instances.close();
  assert.equal(world.instances.get("c1").status, "Stopped");
  assert.equal(world.instances.get("c1").config["volatile.last_state.power"], "STOPPED");
});

Deno.test("a forced stop takes over a clean one that waits, and both end well", async () => {
  await using world = await makeWorld();
  const { runtime, instances } = world;
  await world.create("c1");
  const waits = async (action: string) => {
    await start(world, "c1");
    runtime.seen.length = 0;
    const operation = instances.setState("c1", state(action));
    await runtime.waitFor("kill c1 30");
    return operation;
  };

  const stop = await waits("stop");
  await assert.rejects(
    world.done(instances.setState("c1", state("stop"))),
    /^Error: Failed to create instance stop operation: Instance is busy running a "stop" operation: "c1"$/,
  );
  await world.done(instances.setState("c1", stopNow));
  await world.done(stop);
  assert.deepEqual(runtime.seen, ["kill c1 30", "destroy c1"]);
  assert.equal(instances.get("c1").status, "Stopped");

  const restart = await waits("restart");
  await world.done(instances.setState("c1", stopNow));
  await assert.rejects(
    world.done(restart),
    /^Error: Cannot restart "c1": a forced stop took over, so it stays stopped$/,
  );
  assert.equal(instances.get("c1").status, "Stopped", "the last word was to stop it");

  const other = await waits("stop");
  await world.done(instances.setState("c1", state("restart", { force: true })));
  await world.done(other);
  assert.deepEqual(runtime.seen, ["kill c1 30", "destroy c1", "start c1"]);
  assert.equal(instances.get("c1").status, "Running");

  // As in LXD, timeout 0 means by force.
  await world.done(instances.setState("c1", state("stop", { timeout: 0 })));
  assert.equal(instances.get("c1").status, "Stopped");
});

Deno.test("an ephemeral instance stays when a forced restart takes over a clean one, and goes when a forced stop does", async () => {
  await using world = await makeWorld();
  for (const action of ["restart", "stop"]) {
    await world.create("c1", { ephemeral: true });
    await start(world, "c1");
    world.runtime.seen.length = 0;
    const waiting = world.instances.setState("c1", state("restart"));
    await world.runtime.waitFor("kill c1 30");
    await world.done(world.instances.setState("c1", state(action, { force: true })));
    if (action === "restart") await world.done(waiting);
    else await assert.rejects(world.done(waiting), /a forced stop took over/);
    assert.deepEqual(world.instances.names(), action === "restart" ? ["c1"] : []);
    if (action === "restart") await world.done(world.instances.setState("c1", stopNow));
  }
});

Deno.test("the wait of a clean stop can be cancelled, and a daemon that ends does so: the container goes on", async () => {
  await using world = await makeWorld();
  await world.create("c1");
  await start(world, "c1");
  for (const cancel of [(operation: Operation) => operation.cancel(), () => void world.operations.close()]) {
    world.runtime.seen.length = 0;
    const operation = world.instances.setState("c1", state("stop"));
    await world.runtime.waitFor("kill c1 30");
    cancel(operation);
    await operation.finished;
    assert.deepEqual([operation.view().status_code, operation.view().err], [401, "Operation cancelled"]);
    assert.equal(world.instances.get("c1").status, "Running");
  }
  // The container has got the signal, and may still stop.
  world.runtime.end("c1");
  await world.instances.close();
  assert.equal(world.instances.get("c1").config["volatile.last_state.power"], "STOPPED");
});

Deno.test("nobody waits for a hanging operation of the daemon itself for longer than the locks' patience", async () => {
  const locks = new OperationLocks({ patienceMs: 20 });
  const own = await locks.wait("c1", "start");
  await assert.rejects(
    locks.acquire("c1", "stop", { takeOver: true }),
    /Instance is busy running a "start" operation: "c1"$/,
  );
  const next = locks.acquire("c1", "stop");
  own[Symbol.dispose]();
  using held = await next;
  assert.equal(held.hasTakenOver, false);
  // A cancelled operation that does not end, such as a restart whose start hangs.
  await assert.rejects(
    locks.acquire("c1", "stop", { takeOver: true }),
    /Instance is busy running a "stop" operation: "c1"$/,
  );
  assert.equal(held.takenOver.reason, "stop");
});

Deno.test("everybody who waits for a lock has a turn: who tidies up first, then forced operations, then the others as they came", async () => {
  const locks = new OperationLocks();
  const turns: string[] = [];
  const turn = (what: string) => (lock: Disposable) => {
    turns.push(what);
    lock[Symbol.dispose]();
  };
  const own = await locks.wait("c1", "start");
  assert.equal(own.awaited.aborted, false);
  const waiting = [
    locks.wait("c1", "update").then(turn("own")),
    locks.acquire("c1", "start").then(turn("user")),
    locks.acquire("c1", "stop", { takeOver: true }).then(turn("forced")),
    locks.wait("c1", "stop", { tidies: true }).then(turn("tidies")),
  ];
  assert.ok(own.awaited.aborted);
  own[Symbol.dispose]();
  // A user's operation fails instead of waiting for another user's.
  const [, user] = await Promise.allSettled(waiting);
  assert.match(String((user as PromiseRejectedResult).reason), /busy running a "stop" operation: "c1"$/);
  assert.deepEqual(turns, ["tidies", "forced", "own"]);
  assert.equal(locks.action("c1"), undefined);
});

Deno.test("a container that reboots in a loop obeys its user, and does not keep a daemon from its end", async () => {
  for (const ephemeral of [false, true]) {
    for (const stop of [state("stop"), state("stop", { force: true })]) {
      await using world = await makeWorld();
      const { runtime, instances } = world;
      await world.create("c1", { ephemeral });
      runtime.endsAtOnce.set("c1", { signal: 1 });
      await start(world, "c1");
      await assert.rejects(world.done(instances.rename("c1", "c2")), /running container/);
      assert.throws(() => instances.delete("c1"), /is running/);
      assert.equal(instances.get("c1").status, "Running");
      await world.done(instances.setState("c1", state("restart", { force: true })));
      assert.equal(instances.get("c1").status, "Running");
      await world.done(instances.setState("c1", stop));
      const starts = runtime.seen.length;
      await instances.close();
      assert.equal(runtime.seen.length, starts);
      if (ephemeral) assert.deepEqual(instances.names(), []);
      else assert.equal(instances.get("c1").status, "Stopped");
    }
  }
  await using world = await makeWorld();
  await world.create("c1");
  world.runtime.endsAtOnce.set("c1", { signal: 1 });
  await start(world, "c1");
  await world.instances.close();
  // The next daemon must start it again.
  assert.equal(world.instances.get("c1").config["volatile.last_state.power"], "RUNNING");
});

Deno.test("a start tells of an init that ends at once: a failure fails it, anything else is noted", async () => {
  await using world = await makeWorld();
  const { runtime, instances, events } = world;
  const seen: string[] = [];
  events.subscribe(
    ["lifecycle"],
    ({ metadata }) => seen.push(`${metadata.action} ${JSON.stringify(metadata.context)}`),
  );
  await world.create("c1");
  seen.length = 0;

  runtime.endsAtOnce.set("c1", { code: 3 });
  const text = /^Error: Failed to start "c1": its init ended after \d+ ms with exit code 3$/;
  await assert.rejects(world.done(instances.setState("c1", state("start"))), text);
  assert.equal(instances.get("c1").config["volatile.last_state.power"], "STOPPED");
  assert.equal((await instances.state("c1")).last_exit?.exit_code, 3);
  assert.deepEqual(seen, ['instance-shutdown {"exit_code":3,"signal":null,"description":"with exit code 3"}']);
  assert.equal(instances.get("c1").status, "Stopped");

  for (
    const [status, words] of [[{ code: 0 }, "with exit code 0"], [{ signal: 2 }, "by switching itself off"]] as const
  ) {
    runtime.endsAtOnce.set("c1", status);
    const operation = instances.setState("c1", state("start"));
    await world.done(operation);
    assert.deepEqual(operation.view().metadata, { notes: [`"c1" ended at once ${words}`] });
    assert.equal(instances.get("c1").status, "Stopped");
  }

  // A container that reboots at once is started again, and then runs.
  runtime.endsAtOnce.set("c1", { signal: 1 });
  runtime.seen.length = 0;
  await start(world, "c1");
  runtime.endsAtOnce.clear();
  await instances.close();
  assert.deepEqual(runtime.seen, ["start c1", "start c1"]);
  assert.equal(instances.get("c1").status, "Running");

  await world.create("e1", { ephemeral: true });
  runtime.endsAtOnce.set("e1", { code: 1 });
  await assert.rejects(world.done(instances.setState("e1", state("start"))), /its init ended/);
  assert.ok(!instances.names().includes("e1"), "as on LXD, it goes when its init has ended");
  await world.create("e1", { ephemeral: true });
  runtime.failures.set("start e1", new LidoError("internal", "no init"));
  await assert.rejects(world.done(instances.setState("e1", state("start"))), /no init/);
  assert.ok(!instances.names().includes("e1"), "and when it has none");
  runtime.failures.clear();
  await world.create("e1", { ephemeral: true });
  runtime.endsAtOnce.set("e1", { code: 0 });
  await start(world, "e1");
  assert.ok(!instances.names().includes("e1"));
});

Deno.test("a container that has just ended runs until it is tidied up; what the user asks for meanwhile waits for that", async () => {
  await using world = await makeWorld();
  await world.create("c1");
  await start(world, "c1");
  for (let round = 0; round < 2; round++) {
    world.runtime.end("c1");
    assert.equal(world.instances.get("c1").status, "Running");
    assert.equal((await world.instances.getFull("c1")).state!.status, "Running");
    await start(world, "c1");
    assert.equal(world.runtime.get("c1")!.status, "running");
  }
  world.runtime.end("c1");
  await world.done(world.instances.delete("c1"));
  assert.deepEqual(world.instances.names(), []);
});

Deno.test("a reboot from inside starts the container again; an ephemeral one goes when it ends, not when it restarts", async () => {
  await using world = await makeWorld();
  await world.create("c1", { ephemeral: true });
  await start(world, "c1");
  world.runtime.end("c1", { signal: 1 });
  await world.instances.close();
  assert.equal(world.instances.get("c1").status, "Running");
  await world.done(world.instances.setState("c1", state("restart", { force: true })));
  assert.equal(world.instances.get("c1").status, "Running");
  world.runtime.end("c1", { signal: 2 });
  await world.instances.close();
  assert.deepEqual(world.instances.names(), []);
  await assert.rejects(access(join(world.root, "container/c1")));
});

Deno.test("freeze, unfreeze, and what a frozen one refuses", async () => {
  await using world = await makeWorld();
  await world.create("c1");
  await world.addVolume("v1");
  await assert.rejects(world.done(world.instances.setState("c1", state("freeze"))), /The container isn't running/);
  assert.throws(() => world.instances.execTarget("c1"), /Instance is not running/);
  await start(world, "c1");
  await world.done(world.instances.setState("c1", state("freeze")));
  assert.equal(world.instances.get("c1").status_code, 110);
  await assert.rejects(world.done(world.instances.setState("c1", state("freeze"))), /already frozen/);
  assert.throws(() => world.instances.execTarget("c1"), /Instance is frozen/);
  await assert.rejects(change(world, "c1", { devices: { v: volume("v1", "/v") } }), /Instance is frozen/);
  assert.deepEqual(world.instances.get("c1").devices, {});
  await world.done(world.instances.setState("c1", state("unfreeze")));
  assert.equal(world.instances.execTarget("c1").idmap!.uid[0]!.host, 1_000_000);
});

Deno.test("sharing: one map works, another is refused with LXD's texts, made the same it works", async () => {
  await using world = await makeWorld();
  await world.addVolume("v1");
  await world.create("c1");
  await world.create("c2", { config: { "security.idmap.isolated": "true" } });
  assert.equal(world.instances.get("c2").config["volatile.idmap.base"], "1065536");
  await start(world, "c1");
  await start(world, "c2");
  await change(world, "c1", { devices: { v: volume("v1", "/srv") } });
  assert.deepEqual(world.shifts, ["/custom/default_v1 0 1000000"]);
  assert.match(world.volumeConfig("v1")["volatile.idmap.last"]!, /"Hostid":1000000/);
  assert.equal(world.runtime.mounts.get("c1")!.get("/srv")!.shifted, false);

  await assert.rejects(
    change(world, "c2", { devices: { v: volume("v1", "/srv") } }),
    /^Error: Failed to start device "v": Failed mounting volume: Failed shifting storage volume "v1" of type "custom" on storage pool "p": Idmaps of container "c2" and storage volume "v1" are not identical: "c2" has ids 0-65535 as 1065536-1131071; "c1", which uses the volume too, has ids 0-399999 as 1000000-1399999$/,
  );
  assert.deepEqual(world.instances.get("c2").devices, {}, "the device is not kept");
  assert.equal(world.runtime.mounts.get("c2")!.size, 0);

  await world.done(world.instances.setState("c2", stopNow));
  await change(world, "c2", { devices: { v: volume("v1", "/srv") } });
  await assert.rejects(
    start(world, "c2"),
    /Idmaps of container "c2" and storage volume "v1" are not identical: "c2" has ids .*; "c1", which uses/,
  );
  await change(world, "c2", { config: { "security.idmap.isolated": "false" } });
  await start(world, "c2");
  assert.deepEqual(world.shifts.length, 1);
  assert.deepEqual(world.database.all("SELECT * FROM journal"), []);
});

Deno.test("sharing: a volume that becomes a shifted one gets its plain owners back, however many use it", async () => {
  await using world = await makeWorld();
  await world.addVolume("v1");
  for (const name of ["c1", "c2"]) {
    await world.create(name, { devices: { a: volume("v1", "/a") } });
    await start(world, name);
  }
  for (const name of ["c1", "c2"]) await world.done(world.instances.setState(name, stopNow));
  const config = JSON.stringify({ ...world.volumeConfig("v1"), "security.shifted": "true" });
  world.database.run("UPDATE storage_volumes SET config = ? WHERE name = 'v1'", config);
  await change(world, "c2", { config: { "security.idmap.isolated": "true" } });
  for (const name of ["c2", "c1"]) await start(world, name);
  assert.deepEqual(world.shifts, ["/custom/default_v1 0 1000000", "/custom/default_v1 1000000 0"]);
  assert.equal(world.volumeConfig("v1")["volatile.idmap.last"], "[]");
  for (const name of ["c1", "c2"]) assert.equal(world.runtime.mounts.get(name)!.get("/a")!.shifted, true);
});

Deno.test("sharing: a volume with one user follows its map; unmapped and shifted ones stay", async () => {
  await using world = await makeWorld();
  await world.addVolume("v1");
  await world.addVolume("plain", { "security.unmapped": "true" });
  await world.addVolume("all", { "security.shifted": "true" });
  await world.create("c1", {
    devices: { a: volume("v1", "/a"), b: volume("plain", "/b"), c: volume("all", "/c") },
  });
  await start(world, "c1");
  await world.done(world.instances.setState("c1", stopNow));
  await change(world, "c1", { config: { "security.privileged": "true" } });
  await start(world, "c1");
  assert.deepEqual(world.shifts, ["/custom/default_v1 0 1000000", "/custom/default_v1 1000000 0"]);
  assert.equal(world.volumeConfig("plain")["volatile.idmap.last"], undefined);
  assert.equal(world.runtime.mounts.get("c1")!.get("/c")!.shifted, false, "privileged: nothing to shift");
  assert.equal(world.runtime.started.get("c1")!.idmap, undefined);

  await world.create("c2", { devices: { c: volume("all", "/c") } });
  await start(world, "c2");
  assert.equal(world.runtime.mounts.get("c2")!.get("/c")!.shifted, true);
  world.pool.idmappedMounts = false;
  await world.create("c3", { devices: { c: volume("all", "/c") } });
  await assert.rejects(
    start(world, "c3"),
    /^Error: Failed to start device "c": Required idmapping abilities not available$/,
  );
});

Deno.test("without idmapped mounts the root filesystem's owners are changed, and changed again with the map", async () => {
  await using world = await makeWorld();
  world.pool.idmappedMounts = false;
  await world.create("c1");
  await start(world, "c1");
  assert.equal(world.runtime.started.get("c1")!.rootfsShifted, false);
  await world.done(world.instances.setState("c1", stopNow));
  await change(world, "c1", { config: { "security.idmap.isolated": "true" } });
  await start(world, "c1");
  await world.done(world.instances.setState("c1", stopNow));
  world.pool.idmappedMounts = true;
  await start(world, "c1");
  assert.deepEqual(world.shifts, [
    "/container/c1/rootfs 0 1000000",
    "/container/c1/rootfs 1000000 1065536",
    "/container/c1/rootfs 1065536 0",
  ]);
});

Deno.test("hot plug is all or nothing", async () => {
  await using world = await makeWorld();
  await world.addVolume("v1");
  await world.addVolume("v2");
  await world.create("c1", { devices: { a: volume("v1", "/a") } });
  await start(world, "c1");
  world.runtime.failures.set("attach c1 /b/deep", new Error("the target leaves the root"));
  await assert.rejects(
    change(world, "c1", { devices: { b: volume("v2", "/b"), c: volume("v1", "/b/deep") } }),
    /^Error: Failed to start device "c": the target leaves the root$/,
  );
  assert.deepEqual(Object.keys(world.instances.get("c1").devices), ["a"]);
  assert.deepEqual([...world.runtime.mounts.get("c1")!.keys()], ["/a"]);
  world.runtime.failures.clear();
  world.runtime.seen.length = 0;
  await change(world, "c1", { devices: { b: volume("v2", "/b"), c: volume("v1", "/b/deep") } });
  assert.deepEqual(world.runtime.seen, ["detach c1 /a", "attach c1 /b", "attach c1 /b/deep"]);

  const onlyDeep = { devices: { c: volume("v1", "/b/deep") } };
  world.runtime.failures.set("detach c1 /b/deep", new Error("busy: held by sh (12)"));
  await assert.rejects(change(world, "c1", onlyDeep), /Failed to stop device "c": busy/);
  assert.deepEqual(Object.keys(world.instances.get("c1").devices), ["b", "c"]);
  world.runtime.failures.clear();
  world.runtime.seen.length = 0;
  await change(world, "c1", onlyDeep);
  assert.deepEqual(world.runtime.seen, ["detach c1 /b/deep", "detach c1 /b", "attach c1 /b/deep"]);
  assert.deepEqual(world.database.all("SELECT * FROM journal"), []);
});

Deno.test("a change of a profile reaches running instances, and those that cannot follow are named", async () => {
  await using world = await makeWorld();
  await world.addVolume("v1");
  await world.create("c1");
  await start(world, "c1");
  const save = async (devices: object) => {
    const before = world.instances.profileUsers("default");
    world.database.run("UPDATE profiles SET devices = ? WHERE name = 'default'", JSON.stringify(devices));
    return await world.instances.profileChanged(before);
  };
  const root = { type: "disk", path: "/", pool: "p" };
  await save({ root, v: volume("v1", "/v") });
  assert.ok(world.runtime.mounts.get("c1")!.has("/v"));
  await save({ root });
  assert.ok(!world.runtime.mounts.get("c1")!.has("/v"));
  const { failures } = await save({ root, v: volume("gone", "/v") });
  assert.equal(failures.length, 1);
  assert.equal(failures[0]!.instance, "c1");
  assert.match(failures[0]!.reason, /^Failed to start device "v": /);
});

Deno.test("updates are checked: root, pool, keys, devices", async () => {
  await using world = await makeWorld();
  await world.create("c1");
  const devices = { root: { type: "disk", path: "/", pool: "q" } };
  await assert.rejects(change(world, "c1", { devices }), /Cannot update root disk device pool name to "q"/);
  await assert.rejects(
    change(world, "c1", { config: { foo: "x" } }),
    /^Error: Invalid config: Unknown configuration key: foo: boot\.\*, .*limits\.\*.* are allowed$/,
  );
  await assert.rejects(
    change(world, "c1", { config: { "volatile.idmap.next": "[]" } }),
    /Volatile idmap keys can't be changed by the user/,
  );
  const put = instancePutSchema.parse({ profiles: ["default"] });
  await assert.rejects(
    world.done(world.instances.update("c1", put)),
    /Volatile idmap keys can't be deleted by the user/,
  );
  assert.throws(() => world.instances.update("c1", { ...put, profiles: ["no"] }), /Profile not found/);
  assert.throws(() => world.instances.update("c1", { ...put, profiles: ["default", "default"] }), /Duplicate profile/);
  await assert.rejects(
    change(world, "c1", { devices: { a: { type: "disk", path: "/m", source: "/dev/null" } } }),
    /neither a directory/,
  );
  await assert.rejects(
    change(world, "c1", { devices: { a: { type: "disk", path: "/m", source: "/no/such" } } }),
    /^Error: Failed add validation for device "a": Missing source path "\/no\/such" for disk "a"$/,
  );
  await world.done(world.instances.patch("c1", { config: { "user.a": "b" } }));
  assert.equal(world.instances.get("c1").config["user.a"], "b");
  await world.done(world.instances.patch("c1", { config: { "user.a": "" } }));
  assert.equal(world.instances.get("c1").config["user.a"], undefined);
});

Deno.test("limits of a running instance change at once, back when the rest is refused; other keys wait and say so", async () => {
  await using world = await makeWorld();
  const { runtime, instances } = world;
  await world.create("c1", { config: { "limits.cpu": "2" } });
  await start(world, "c1");
  assert.deepEqual(runtime.started.get("c1")!.limits, { swap: true, cpus: 2, hugepages: {} });
  await change(world, "c1", {
    config: {
      "limits.cpu": "0-1",
      "limits.cpu.allowance": "25ms/100ms",
      "limits.memory": "64MiB",
      "limits.memory.enforce": "soft",
      "limits.memory.swap": "false",
      "limits.hugepages.2MB": "4MiB",
    },
  });
  const now = {
    memory: { bytes: 67108864n, enforce: "soft" },
    swap: false,
    cpus: "0-1",
    cpuAllowance: { kind: "time", quotaMs: 25, periodMs: 100 },
    hugepages: { "2MB": 4194304n },
  };
  assert.deepEqual(runtime.limits.get("c1"), now);

  await world.addVolume("v");
  runtime.failures.set("attach c1 /mnt", new Error("no such thing"));
  const { devices } = instances.get("c1");
  await assert.rejects(
    change(world, "c1", { config: { "limits.processes": "5" }, devices: { ...devices, v: volume("v", "/mnt") } }),
    /no such thing/,
  );
  assert.deepEqual(runtime.limits.get("c1"), now);
  runtime.failures.set("limits c1", new Error("cannot be had"));
  await assert.rejects(change(world, "c1", { config: { "limits.processes": "5" } }), /cannot be had/);
  assert.equal(instances.get("c1").config["limits.processes"], undefined);
  runtime.failures.clear();

  const set = (config: Record<string, string>) =>
    instances.patch("c1", instancePutSchema.partial().parse({ config: { ...instances.get("c1").config, ...config } }));
  const waiting = set({ "security.privileged": "true", "limits.processes": "9" });
  await world.done(waiting);
  assert.deepEqual(waiting.view().metadata, { notes: ['security.privileged: takes effect when "c1" is restarted'] });
  const user = set({ "user.x": "y" });
  await world.done(user);
  assert.equal(user.view().metadata, null);

  // The same by a profile.
  const before = instances.profileUsers("default");
  const settings = { "limits.disk.priority": "3", "security.idmap.isolated": "true" };
  world.database.run("UPDATE profiles SET config = ?", JSON.stringify(settings));
  assert.deepEqual(await instances.profileChanged(before), {
    notes: ['security.idmap.isolated: takes effect when "c1" is restarted'],
    failures: [],
  });
  assert.equal(runtime.limits.get("c1")!.diskPriority, 3);

  // The daemon was killed after setting limits and before recording them: the next daemon sets the recorded ones.
  runtime.limits.clear();
  await instances.close();
  await using next = await makeWorld({ root: world.root, runtime });
  await next.instances.start();
  assert.equal(runtime.limits.get("c1")!.processes, 9);
});

Deno.test("rename moves volume, rows and logs; refused when running or taken", async () => {
  await using world = await makeWorld();
  await world.create("c1");
  await world.create("c2");
  assert.throws(() => world.instances.rename("c1", "c2"), /Name "c2" already in use/);
  await start(world, "c1");
  await assert.rejects(world.done(world.instances.rename("c1", "c3")), /Renaming of running container not allowed/);
  await world.done(world.instances.setState("c1", stopNow));
  await world.done(world.instances.rename("c1", "c3"));
  assert.deepEqual(world.instances.names(), ["c2", "c3"]);
  await access(join(world.root, "container/c3/rootfs"));
  await start(world, "c3");
});

Deno.test("after a restart of the daemon: what runs is taken up, what ended is started again, what was cut off is settled", async () => {
  await using first = await makeWorld();
  await first.addVolume("v1");
  for (const name of ["runs", "ended", "off", "auto"]) await first.create(name);
  await change(first, "auto", { config: { "boot.autostart": "true" } });
  for (const name of ["runs", "ended"]) await start(first, name);
  await change(first, "runs", { devices: { v: volume("v1", "/v") } });
  // The daemon was killed in the middle of an attach at /w and of a creation, and a container ended afterwards.
  const added = [{ ...disksOf({ w: { type: "disk", path: "/w", source: "/x" } })[0]! }];
  const half = JSON.stringify({ name: "runs", removed: [], added });
  first.database.run("INSERT INTO journal (kind, payload, created_at) VALUES ('instance.hotplug', ?, '')", half);
  first.database.run(
    "INSERT INTO journal (kind, payload, created_at) VALUES ('instance.create', ?, '')",
    JSON.stringify({ name: "off", pool: "p" }),
  );
  first.runtime.mounts.get("runs")!.set("/w", { source: "/x", target: "/w" });
  first.runtime.endUnseen("ended");
  // The daemon was killed between starting a container with another map and recording that map.
  const { "volatile.idmap.current": map, ...before } = first.instances.get("runs").config;
  const stale = { ...before, "volatile.idmap.current": "[]", "volatile.last_state.power": "STOPPED" };
  first.database.run("UPDATE instances SET config = ? WHERE name = 'runs'", JSON.stringify(stale));
  const second = await makeWorld({ root: first.root, runtime: first.runtime });
  await using _second = second;
  assert.deepEqual((await second.journal.recover()).unsettled, []);
  second.runtime.seen.length = 0;
  await second.instances.start();
  await second.runtime.waitFor("start ended");
  await second.instances.close();
  assert.deepEqual(second.instances.names(), ["auto", "ended", "runs"]);
  assert.deepEqual(second.instances.list().map((each) => each.status), ["Running", "Running", "Running"]);
  assert.deepEqual([...second.runtime.mounts.get("runs")!.keys()], ["/v"]);
  assert.equal(second.instances.get("runs").config["volatile.idmap.current"], map);
});

Deno.test("instances that are stopped keep their ranges apart, and a deleted one's is used again", async () => {
  await using world = await makeWorld();
  const config = { "security.idmap.isolated": "true", "security.idmap.size": "100000" };
  for (const name of ["a", "b", "c"]) await world.create(name, { config });
  const base = (name: string) => world.instances.get(name).config["volatile.idmap.base"];
  assert.deepEqual(["a", "b", "c"].map(base), ["1065536", "1165536", "1265536"]);
  await assert.rejects(world.create("d", { config }), /Not enough uid\/gid available for the container/);
  assert.deepEqual(world.instances.names(), ["a", "b", "c"]);
  await world.done(world.instances.delete("b"));
  await world.create("d", { config });
  assert.equal(base("d"), "1165536");
});

Deno.test("maps are renewed at the daemon's start, quickly for many; a malformed raw.idmap is in nobody else's way", async () => {
  await using world = await makeWorld();
  const isolated = { "security.idmap.isolated": "true", "security.idmap.size": "10" };
  await world.create("a", { config: isolated });
  await world.create("b", { config: { "raw.idmap": "both 5 5" } });
  const row = world.database.get("SELECT * FROM instances WHERE name = 'b'")!;
  const insert = (name: string, config: Record<string, string>) =>
    world.database.run(
      "INSERT INTO instances (name, architecture, description, ephemeral, config, devices, created_at) VALUES (?, ?, '', 0, ?, ?, ?)",
      name,
      row.architecture!,
      JSON.stringify(config),
      row.devices!,
      row.created_at!,
    );
  const earlier = formatIdmap({
    uid: [{ container: 0, host: 1_000_000, count: 65536 }],
    gid: [{ container: 0, host: 1_000_000, count: 65536 }],
  });
  for (let index = 0; index < 500; index++) {
    insert(`s${index}`, { "volatile.idmap.base": "0", "volatile.idmap.next": earlier });
    // Isolated instances whose base was never written.
    insert(`i${index}`, isolated);
  }
  world.database.run(
    "UPDATE instances SET config = ? WHERE name = 'b'",
    JSON.stringify({ "raw.idmap": "nonsense", "volatile.idmap.next": earlier }),
  );
  const startedAt = performance.now();
  await world.instances.start();
  assert.ok(performance.now() - startedAt < 5000 * slowness);
  const configs = world.instances.list().map(({ name, config }) => ({ name, config }));
  const next = (config: Record<string, string>) => JSON.parse(config["volatile.idmap.next"]!)[0];
  for (const { config } of configs.filter(({ name }) => name.startsWith("s"))) {
    assert.equal(next(config).Maprange, 400_000);
  }
  const bases = configs.filter(({ config }) => config["security.idmap.isolated"]).map(({ config }) =>
    next(config).Hostid
  );
  assert.deepEqual(bases.sort((a, b) => a - b), bases.map((_, index) => 1_065_536 + 10 * index));
  assert.equal(world.instances.get("b").config["volatile.idmap.next"], earlier, "it keeps what it has");
  await world.create("c", { config: isolated });
});
