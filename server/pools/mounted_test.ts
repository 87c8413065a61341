import assert from "node:assert/strict";
import type { Driver, Volume } from "../../drivers/storage/driver.ts";
import { MountedVolumes } from "./mounted.ts";

const volume: Volume = { type: "custom", name: "default_v" };

/** A driver that records its calls, and fails once for each entry of `failures`. */
function fakeDriver(seen: string[], failures: string[] = []): Driver {
  const act = (verb: string) => (one: Volume) => {
    const options = one.config?.["block.mount_options"];
    seen.push(
      `${verb} ${one.name}${one.snapshot === undefined ? "" : `/${one.snapshot}`}${options ? ` ${options}` : ""}`,
    );
    if (failures[0] !== verb) return Promise.resolve();
    failures.shift();
    return Promise.reject(new Error(`${verb} failed`));
  };
  return {
    pool: { name: "p1", config: {}, root: "/pools/p1", diskFile: "" },
    path: (one: Volume) => `/pools/p1/custom/${one.name}`,
    mount: act("mount"),
    unmount: act("unmount"),
    list: () => Promise.resolve([volume, { ...volume, name: "default_w" }]),
  } as unknown as Driver;
}

async function make(failures: string[] = [], isStarted = true) {
  const seen: string[] = [], warnings: object[] = [];
  const driver = fakeDriver(seen, failures);
  const mounts = new MountedVolumes({
    driver: () => driver,
    config: () => ({ "block.mount_options": "discard" }),
    log: { warn: (context) => warnings.push(context) },
  });
  if (isStarted) await mounts.start([driver], []);
  return { mounts, seen, driver, warnings };
}

const mounted = "mount default_v discard", unmounted = "unmount default_v";

Deno.test("MountedVolumes mounts for the first use and unmounts after the last", async () => {
  const { mounts, seen } = await make();
  const [a, b] = await Promise.all([mounts.use("p1", volume), mounts.use("p1", volume)]);
  assert.equal(a.path, "/pools/p1/custom/default_v");
  await a[Symbol.asyncDispose]();
  await a[Symbol.asyncDispose]();
  assert.deepEqual(seen, [mounted]);
  await b[Symbol.asyncDispose]();
  assert.deepEqual(seen, [mounted, unmounted]);
});

Deno.test("MountedVolumes: a volume and its snapshot are mounted apart", async () => {
  const { mounts, seen } = await make();
  {
    await using _volume = await mounts.use("p1", volume);
    await using _snapshot = await mounts.use("p1", { ...volume, snapshot: "s0" });
  }
  assert.deepEqual(seen, [mounted, "mount default_v/s0 discard", "unmount default_v/s0", unmounted]);
});

Deno.test("MountedVolumes keeps what a running container holds, whatever uses come and go", async () => {
  const { mounts, seen } = await make();
  await mounts.hold("p1", volume, "c1/data");
  await mounts.hold("p1", volume, "c2/data");
  {
    await using _use = await mounts.use("p1", volume);
  }
  await mounts.alone("p1", volume, () => Promise.resolve());
  await mounts.release("p1", volume, "c1/data");
  await mounts.release("p1", volume, "c1/data");
  assert.deepEqual(seen, [mounted]);
  await mounts.release("p1", volume, "c2/data");
  assert.deepEqual(seen, [mounted, unmounted]);
});

Deno.test("MountedVolumes unmounts nothing before every container is known, then what is nobody's", async () => {
  const { mounts, seen, driver } = await make([], false);
  {
    await using _use = await mounts.use("p1", volume);
  }
  mounts.adopt("p1", volume, "c1");
  assert.deepEqual(seen, [mounted]);
  await mounts.start([driver], ["/pools/p1/custom/default_v", "/pools/p1/custom/default_w", "/"]);
  assert.deepEqual(seen, [mounted, "unmount default_w"]);
  await mounts.release("p1", volume, "c1");
  assert.deepEqual(seen, [mounted, "unmount default_w", unmounted]);
});

Deno.test("MountedVolumes.alone() waits for the last use, nested ones included, and lets none begin", async () => {
  const { mounts, seen } = await make();
  const use = await mounts.use("p1", volume);
  const order: string[] = [];
  const alone = mounts.alone("p1", volume, () => {
    order.push("alone", ...seen.splice(0));
    return Promise.resolve();
  });
  const nested = await mounts.use("p1", volume);
  order.push("nested");
  await use[Symbol.asyncDispose]();
  await nested[Symbol.asyncDispose]();
  const later = mounts.use("p1", volume);
  await alone;
  assert.deepEqual(order, ["nested", "alone", mounted, unmounted]);
  await (await later)[Symbol.asyncDispose]();
  assert.deepEqual(seen, [mounted, unmounted]);
});

Deno.test("MountedVolumes: a mount that fails is tried again by the next use", async () => {
  const { mounts, seen } = await make(["mount"]);
  await assert.rejects(mounts.use("p1", volume), /mount failed/);
  await (await mounts.use("p1", volume))[Symbol.asyncDispose]();
  assert.deepEqual(seen, [mounted, mounted, unmounted]);
});

Deno.test("MountedVolumes: an unmount that fails is no failure of the work, and is tried again", async () => {
  const { mounts, seen, warnings } = await make(["unmount"]);
  await (await mounts.use("p1", volume))[Symbol.asyncDispose]();
  assert.deepEqual(warnings, [{ volume: "p1/custom/default_v", error: "unmount failed" }]);
  await (await mounts.use("p1", volume))[Symbol.asyncDispose]();
  assert.deepEqual(seen, [mounted, unmounted, unmounted]);
});

Deno.test("MountedVolumes counts no use of a pool that is away", async () => {
  const seen: string[] = [], driver = fakeDriver(seen);
  let isAway = false;
  const mounts = new MountedVolumes({
    driver: () => {
      if (isAway) throw new Error("the pool is away");
      return driver;
    },
    config: () => undefined,
    log: { warn: () => {} },
  });
  await mounts.start([driver], []);
  const use = await mounts.use("p1", volume);
  isAway = true;
  await assert.rejects(mounts.use("p1", volume), /the pool is away/);
  await assert.rejects(mounts.hold("p1", volume, "c1"), /the pool is away/);
  isAway = false;
  await use[Symbol.asyncDispose]();
  assert.deepEqual(seen, ["mount default_v", "unmount default_v"]);
  assert.equal(mounts.isInUse("p1"), false);
});
