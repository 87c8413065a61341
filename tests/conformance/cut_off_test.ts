/** A driver that is interrupted at any of its points: before and after each command, mount and unmount. Everything after the point fails, as if
 * the daemon was killed. Then the pool is opened anew, and the operation is rolled back or completed as by the journal: it is wholly done or
 * wholly undone, and nothing is left. tests/crash does this to whole daemons; this test is for drivers on machines where that takes too long (the
 * emulated guest of tests/vm), and for closing a pool, which a daemon does at its end. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { ConfinedTools, Host } from "../../drivers/host/host.ts";
import type { Driver, Volume } from "../../drivers/storage/driver.ts";
import { flush } from "../../drivers/storage/tree.ts";
import { endRestore } from "../../server/volumes/restore.ts";
import { host, type Opened, places, reasonAgainst, withPool } from "./places.ts";
import { succeed } from "../support/command.ts";

const work: Volume = { type: "custom", name: "default_work", config: { "zfs.remove_snapshots": "true" } };
const target: Volume = { type: "custom", name: "default_new" };
const at = (volume: Volume, snapshot: string): Volume => ({ ...volume, snapshot });

interface Operation {
  readonly name: string;
  /** Changes the common initial state into the one that this operation begins with. */
  readonly prepare?: (driver: Driver) => Promise<void>;
  readonly run: (driver: Driver) => Promise<void>;
  /** Rolls back or completes the operation as the journal does. */
  readonly settle: (driver: Driver) => Promise<void>;
}

/** A host that fails from a point on, as if its power was cut. */
class Power {
  #left = Infinity;
  #isOff = false;
  readonly host: Host;

  constructor() {
    const through = async <T>(work: () => Promise<T>): Promise<T> => {
      this.#point();
      const result = await work();
      this.#point();
      return result;
    };
    const pointed = (tools: ConfinedTools): ConfinedTools => ({
      run: (argv, options) => through(() => tools.run(argv, options)),
      pipe: (argv, options) => {
        this.#point();
        const { stdout, done } = tools.pipe(argv, options);
        const ended = done.then(() => this.#point());
        ended.catch(() => {});
        return { stdout, done: ended };
      },
    });
    this.host = {
      ...host,
      which: (tool) => host.which(tool),
      ...pointed(host),
      confined: (confinement) => pointed(host.confined(confinement)),
      mounts: {
        mount: (...args) => through(() => host.mounts.mount(...args)),
        bind: (...args) => through(() => host.mounts.bind(...args)),
        forbidDevices: (...args) => through(() => host.mounts.forbidDevices(...args)),
        unmount: (...args) => through(() => host.mounts.unmount(...args)),
        list: () => host.mounts.list(),
        at: (path) => host.mounts.at(path),
        canIdmap: (path) => host.mounts.canIdmap(path),
      },
      loops: host.loops,
    };
  }

  /** @returns Whether the power was still on at the end. */
  async during(points: number, work: () => Promise<void>): Promise<boolean> {
    this.#left = points;
    try {
      await work();
    } catch (error) {
      if (!this.#isOff) throw error;
    }
    return !this.#isOff;
  }

  #point(): void {
    if (--this.#left <= 0) this.#isOff = true;
    if (this.#isOff) throw new Error("the power is off");
  }
}

const operations: readonly Operation[] = [
  {
    name: "create",
    run: (driver) => driver.create(target, { mode: 0o750 }),
    settle: (driver) => driver.delete(target),
  },
  {
    name: "delete, with snapshots and a clone that stays",
    prepare: async (driver) => {
      await driver.facets.snapshot!.create(at(work, "s0"));
      await driver.facets.clone?.clone(work, target);
    },
    run: (driver) => driver.delete(work),
    settle: (driver) => driver.delete(work),
  },
  {
    name: "delete of a clone, the last thing that needs its source",
    prepare: async (driver) => {
      await driver.facets.clone?.clone(work, target);
      await driver.delete(work);
    },
    run: (driver) => driver.delete(target),
    settle: (driver) => driver.delete(target),
  },
  {
    name: "rename",
    prepare: (driver) => driver.facets.snapshot!.create(at(work, "s0")),
    run: (driver) => driver.rename(work, target.name),
    settle: (driver) => driver.rename(target, work.name),
  },
  {
    name: "snapshot",
    run: (driver) => driver.facets.snapshot!.create(at(work, "s0")),
    settle: (driver) => driver.facets.snapshot!.delete(at(work, "s0")),
  },
  {
    name: "deletion of a snapshot with a clone",
    prepare: async (driver) => {
      await driver.facets.snapshot!.create(at(work, "s0"));
      await driver.facets.clone?.clone(at(work, "s0"), target);
    },
    run: (driver) => driver.facets.snapshot!.delete(at(work, "s0")),
    settle: (driver) => driver.facets.snapshot!.delete(at(work, "s0")),
  },
  {
    name: "copy",
    run: async (driver) => await driver.facets.clone?.clone(work, target, { mode: 0o700 }),
    settle: (driver) => driver.delete(target),
  },
  {
    name: "receive",
    prepare: (driver) => driver.facets.snapshot!.create(at(work, "s0")),
    run: async (driver) => {
      const send = driver.facets.send;
      if (!send) return;
      const { stream, done } = send.send(at(work, "s0"));
      await Promise.all([done, send.receive(target, stream)]);
    },
    settle: (driver) => driver.delete(target),
  },
  {
    name: "restore",
    prepare: async (driver) => {
      await driver.facets.snapshot!.create(at(work, "s0"));
      await write(driver, work, "later");
    },
    run: (driver) => restore(driver, []),
    settle: (driver) => settleRestore(driver, []),
  },
  {
    name: "restore past a copy",
    prepare: async (driver) => {
      await driver.facets.snapshot!.create(at(work, "s0"));
      await write(driver, work, "later");
      await driver.facets.clone?.clone(work, target);
    },
    run: (driver) => restore(driver, []),
    settle: (driver) => settleRestore(driver, []),
  },
  {
    name: "restore past later snapshots, one of them with a copy",
    prepare: async (driver) => {
      for (const name of ["s0", "s1", "s2"]) await driver.facets.snapshot!.create(at(work, name));
      await write(driver, work, "later");
      await driver.facets.clone?.clone(at(work, "s1"), target);
    },
    run: (driver) => restore(driver, ["s1", "s2"]),
    settle: (driver) => settleRestore(driver, ["s1", "s2"]),
  },
  {
    name: "close",
    prepare: (driver) => driver.mount(work),
    run: (driver) => driver.close(),
    settle: () => Promise.resolve(),
  },
];

/** @param lost Snapshots that the restore deletes, if the driver needs that. */
async function restore(driver: Driver, lost: readonly string[]): Promise<void> {
  const facet = driver.facets.snapshot!;
  await facet.restore(at(work, "s0"), facet.lostBy ? lost : []);
  await facet.afterRestore(work);
}

async function settleRestore(driver: Driver, lost: readonly string[]): Promise<void> {
  const facet = driver.facets.snapshot!;
  await endRestore(facet, at(work, "s0"), facet.lostBy ? lost : []);
  await facet.afterRestore(work);
}

async function write(driver: Driver, volume: Volume, text: string): Promise<void> {
  await driver.mount(volume);
  writeFileSync(join(driver.path(volume), "file"), text);
  await driver.unmount(volume);
}

/** Lists every volume and snapshot with its content. */
async function look(driver: Driver): Promise<string[]> {
  const found: string[] = [];
  for (const volume of await driver.list()) {
    await driver.mount(volume);
    const file = join(driver.path(volume), "file");
    const text = existsSync(file) ? readFileSync(file, "utf8") : "empty";
    await driver.unmount(volume);
    found.push(`${volume.name}${volume.snapshot === undefined ? "" : `/${volume.snapshot}`}: ${text}`);
  }
  return found.sort();
}

/** Copies the pool's loop file: it has what would survive a power cut, without the data that the kernel has not written yet.
 * @returns Puts the pool back to the copy. */
async function powerCut({ pool, kind }: Opened): Promise<() => Promise<void>> {
  const copy = `${pool.diskFile}.cut`;
  await succeed(["cp", "--sparse=always", "--", pool.diskFile, copy]);
  return async () => {
    await (await kind.open(host, pool)).close();
    renameSync(copy, pool.diskFile);
  };
}

async function cutOff(opened: Opened, operation: Operation): Promise<number> {
  const { pool, kind } = opened;
  const open = () => kind.open(host, pool);
  const begin = async (): Promise<string[]> => {
    const driver = await open();
    for (const volume of await driver.list()) if (volume.snapshot === undefined) await driver.delete(volume);
    await driver.create(work);
    await write(driver, work, "first");
    await operation.prepare?.(driver);
    return await look(driver);
  };
  let before = await begin();
  // Flush the volume's content: that is the user's task, not the driver's.
  await flush(host, pool.root);
  await operation.run(await open());
  // LVM and ZFS flush by themselves, and would write on while the loop file is copied.
  const cut = kind.name === "btrfs" ? await powerCut(opened) : undefined;
  const after = await look(await open());
  if (cut) {
    await cut();
    const again = await open();
    assert.deepEqual(await look(again), after, `${operation.name}, and the power is cut`);
    assert.deepEqual(await again.leftovers(), [], `${operation.name}, and the power is cut: left behind`);
  }
  before = await begin();
  for (let point = 1;; point++) {
    const power = new Power();
    const driver = await kind.open(power.host, pool);
    const isOn = await power.during(point, () => operation.run(driver));
    const again = await open();
    const what = `${operation.name}, cut off at point ${point}`;
    // Unmount everything, as the daemon's start does.
    for (const { target } of (await host.mounts.list()).reverse()) {
      if (target.startsWith(`${pool.root}/`)) await host.mounts.unmount(target);
    }
    if (!isOn) await operation.settle(again);
    const now = await look(again);
    assert.deepEqual(await again.leftovers(), [], `${what}: left behind`);
    if (JSON.stringify(now) === JSON.stringify(after)) before = await begin();
    else assert.deepEqual(now, before, what);
    if (isOn) return point;
    assert.ok(point < 100, "no end of points");
  }
}

const wanted = new RegExp(process.env.LIDO_TEST_PLACES ?? "");

for (const place of places.filter(({ name, isCutOff }) => isCutOff && wanted.test(name))) {
  const reason = await reasonAgainst(place);
  Deno.test({
    name: reason === undefined ? `${place.name}: cut off at every point` : `${place.name}: not on this host: ${reason}`,
    ignore: reason !== undefined,
    fn: (t) =>
      withPool(place, async (opened) => {
        let points = 0;
        for (const operation of operations) {
          const isWhole = await t.step(operation.name, async () => void (points += await cutOff(opened, operation)));
          if (!isWhole) return;
        }
        console.log(`${points} points`);
      }),
    sanitizeResources: false,
  });
}
