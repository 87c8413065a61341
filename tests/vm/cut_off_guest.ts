/** The guest's half of tests/vm/cut_off.ts: checks the state that the last boot left, then runs the next operation up to the point at which the
 * host kills the guest. Exit code 0 when no operation is left. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { StorageVolume } from "../../api/types.ts";
import { digest, faultyDaemon, Requests } from "../crash/support.ts";
import { succeed } from "../support/command.ts";
import { executable, projectRoot } from "../support/daemon.ts";
import { customVolume, type SeenPool, withContent, withContents } from "../support/volume_content.ts";

const directory = "/scratch/lido";
/** On a directory of the host: what is written here survives the guest. */
const recordFile = "/out/record.json";
const faultFile = `${directory}.fault`;
const [device, loop] = process.argv.slice(2).map((words) => {
  const [driver, ...pairs] = words.split(" ");
  return { driver: driver!, config: Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s) as [string, string])) };
});

type State = Record<string, string>;

interface Record_ {
  /** Index of the operation that was interrupted; -1 before the first. */
  readonly step: number;
  readonly before: State;
  readonly after: State;
}

class Api extends Requests {
  volume(pool: string, name: string, source: object = {}, config: object = {}) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom`, { name, type: "custom", config, source });
  }

  copy(from: string, name: string, pool: string, to: string) {
    return this.volume(pool, to, { type: "copy", pool: from, name });
  }

  delete(pool: string, name: string) {
    return this.ask("DELETE", `/storage-pools/${pool}/volumes/custom/${name}`);
  }

  snapshot(pool: string, name: string, snapshot: string) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom/${name}/snapshots`, { name: snapshot });
  }

  move(pool: string, name: string, toPool: string, to: string) {
    return this.ask("POST", `/storage-pools/${pool}/volumes/custom/${name}`, { name: to, pool: toPool });
  }

  instance(pool: string, name: string) {
    const devices = { root: { type: "disk", path: "/", pool } };
    return this.ask("POST", "/instances", { name, devices, source: { type: "image", alias: "bb" } });
  }

  pools(): Promise<SeenPool[]> {
    return this.ask("GET", "/storage-pools?recursion=1");
  }
}

interface Step {
  readonly name: string;
  readonly run: (api: Api) => Promise<unknown>;
  /** Undoes `run`: restores the state before it. */
  readonly reset: (api: Api) => Promise<unknown>;
  /** Where it is interrupted, as a fraction of its points; 1: just after it has reported success. */
  readonly at: number;
}

const backup = readFileSync(join(projectRoot, "tests/fixtures/lxd-5.0.2-volume.tar.gz"));

const steps: readonly Step[] = [
  {
    name: "copy within a pool, cut off when it is done",
    at: 1,
    run: (api) => api.copy("blk", "keep", "blk", "new"),
    reset: (api) => api.delete("blk", "new"),
  },
  { name: "create", at: 0.7, run: (api) => api.volume("blk", "new"), reset: (api) => api.delete("blk", "new") },
  {
    name: "create, cut off when it is done",
    at: 1,
    run: (api) => api.volume("loop", "new", {}, { "initial.mode": "0750" }),
    reset: (api) => api.delete("loop", "new"),
  },
  {
    name: "snapshot, cut off when it is done",
    at: 1,
    run: (api) => api.snapshot("blk", "work", "s1"),
    reset: (api) => api.ask("DELETE", "/storage-pools/blk/volumes/custom/work/snapshots/s1"),
  },
  {
    name: "move to another pool",
    at: 0.6,
    run: (api) => api.move("blk", "work", "loop", "moved"),
    reset: (api) => api.move("loop", "moved", "blk", "work"),
  },
  {
    name: "move to another pool, cut off when it is done",
    at: 1,
    run: (api) => api.move("blk", "work", "plain", "moved"),
    reset: (api) => api.move("plain", "moved", "blk", "work"),
  },
  {
    name: "restore, cut off when it is done",
    at: 1,
    run: (api) => api.ask("PUT", "/storage-pools/blk/volumes/custom/work", { restore: "s0" }),
    reset: (api) => writeLater(api, "blk", "work"),
  },
  {
    name: "restore",
    at: 0.5,
    run: (api) => api.ask("PUT", "/storage-pools/blk/volumes/custom/work", { restore: "s0" }),
    reset: (api) => writeLater(api, "blk", "work"),
  },
  {
    name: "import of a backup, cut off when it is done",
    at: 1,
    run: (api) =>
      api.ask("POST", "/storage-pools/loop/volumes/custom", backup, {
        "content-type": "application/octet-stream",
        "x-lxd-name": "new",
      }),
    reset: (api) => api.delete("loop", "new"),
  },
  {
    name: "delete with a snapshot",
    at: 0.4,
    run: (api) => api.delete("loop", "gone"),
    reset: (api) => api.copy("blk", "keep", "loop", "gone"),
  },
  {
    name: "an instance of an image, cut off when it is done",
    at: 1,
    run: (api) => api.instance("blk", "c2"),
    reset: (api) => api.ask("DELETE", "/instances/c2"),
  },
  {
    name: "delete an instance",
    at: 0.5,
    run: (api) => api.ask("DELETE", "/instances/c1"),
    reset: (api) => api.instance("blk", "c1"),
  },
];

async function writeLater(api: Api, poolName: string, name: string): Promise<void> {
  const pool = (await api.pools()).find((one) => one.name === poolName)!;
  await withContent(directory, pool, { type: "custom", name: `default_${name}` }, (path) => {
    writeFileSync(join(path, "later"), "after the snapshot");
  }, true);
  await succeed(["sync"]);
}

/** All state that users can see, on disk and by the API, without times and ids. */
async function state(api: Api): Promise<State> {
  const found: State = {};
  const pools = await api.pools();
  for (const pool of pools) {
    found[pool.name] = JSON.stringify([pool.driver, pool.config, (pool as unknown as { status: string }).status]);
    const listed = await api.ask("GET", `/storage-pools/${pool.name}/volumes/custom?recursion=1`) as StorageVolume[];
    const volumes = listed.map(({ name }) => customVolume(name));
    await withContents(directory, pool, volumes, (paths) => {
      for (const [index, { name, config }] of listed.entries()) {
        const isSnapshot = volumes[index]!.snapshot !== undefined;
        found[`${pool.name}/${name}`] = isSnapshot
          ? digest(paths[index]!)
          : JSON.stringify([config, digest(paths[index]!)]);
      }
    });
  }
  for (const { name, status, expanded_devices: devices } of await api.ask("GET", "/instances?recursion=1")) {
    const pool = pools.find((one) => one.name === devices.root.pool)!;
    // An instance's record is beside its root and has ids and times of its own: compare the rootfs only.
    const tree = await withContent(
      directory,
      pool,
      { type: "containers", name },
      (path) => digest(join(path, "rootfs")),
    );
    found[name] = JSON.stringify([status, tree]);
  }
  return found;
}

/** Starts the daemon that stops at points. @returns When the daemon serves: by then the interrupted intents are rolled back or completed. */
async function start(): Promise<Api> {
  rmSync(faultFile, { force: true });
  const log = openSync(`${directory}.log`, "a");
  const child = spawn(faultyDaemon, { env: { ...process.env, LIDO_DIR: directory }, stdio: ["ignore", log, log] });
  const gone = new Promise<never>((_, reject) =>
    child.on(
      "exit",
      () => reject(new Error(`The daemon did not come up:\n${readFileSync(`${directory}.log`, "utf8")}`)),
    )
  );
  gone.catch(() => {});
  child.unref();
  const ready = succeed([executable, "waitready", "--timeout", "300"], { env: { LIDO_DIR: directory } });
  await Promise.race([ready, gone]).catch((error) => {
    throw new Error(`${error}\nThe daemon's log ends with:\n${readFileSync(`${directory}.log`, "utf8").slice(-4000)}`);
  });
  return new Api(directory);
}

function save(record: Record_): void {
  writeFileSync(recordFile, JSON.stringify(record));
}

/** Makes pools of each kind, with volumes for the steps and others that no step touches. */
async function furnish(api: Api): Promise<void> {
  const ofName = { blk: device!, loop: loop!, plain: { driver: "dir", config: {} } };
  for (const [name, { driver, config }] of Object.entries(ofName)) {
    await api.ask("POST", "/storage-pools", { name, driver, config });
  }
  await api.ask("POST", "/images", readFileSync(join(projectRoot, "dist/busybox.tar.xz")), {
    "content-type": "application/octet-stream",
  });
  const [{ fingerprint }] = await api.ask("GET", "/images?recursion=1");
  await api.ask("POST", "/images/aliases", { name: "bb", target: fingerprint });
  const pools = await api.pools();
  for (const [pool, name] of [["blk", "keep"], ["blk", "work"], ["loop", "keep"], ["plain", "keep"]] as const) {
    await api.volume(pool, name);
    const seen = pools.find((one) => one.name === pool)!;
    await withContent(directory, seen, { type: "custom", name: `default_${name}` }, (path) => {
      mkdirSync(join(path, "sub"));
      for (let index = 0; index < 8; index++) {
        writeFileSync(join(path, "sub", `f${index}`), noise(`${pool}${name}${index}`));
      }
    }, true);
    await api.snapshot(pool, name, "s0");
    if (name === "work") await writeLater(api, pool, name);
  }
  await api.copy("blk", "keep", "loop", "gone");
  await api.instance("blk", "c1");
}

/** 1 MB of data that does not compress and is the same each time. */
function noise(seed: string): Uint8Array {
  let block: Uint8Array = createHash("sha512").update(seed).digest();
  const blocks = Array.from({ length: 16384 }, () => block = createHash("sha512").update(block).digest());
  return Buffer.concat(blocks);
}

/** @returns Number of an operation's points, counted by the daemon while the operation runs. */
async function points(run: () => Promise<unknown>): Promise<number> {
  writeFileSync(faultFile, `count 0 ${Math.random()}`);
  await run();
  return Number(readFileSync(`${faultFile}.count`, "utf8"));
}

const sorted = (value: State) => JSON.stringify(Object.entries(value).sort(([left], [right]) => left < right ? -1 : 1));

const isFirst = !existsSync(recordFile);
const api = await start();
let record: Record_;
if (isFirst) {
  await furnish(api);
  await succeed(["sync"]);
  record = { step: -1, before: await state(api), after: {} };
} else {
  record = JSON.parse(readFileSync(recordFile, "utf8"));
  const { name, reset, at } = steps[record.step]!;
  assert.deepEqual(await api.ask("POST", "/check", {}), [], `${name}: check`);
  const now = await state(api);
  const isDone = sorted(now) === sorted(record.after);
  // An operation that has reported success must be done.
  if (at === 1) assert.deepEqual(now, record.after, name);
  else if (!isDone) assert.deepEqual(now, record.before, name);
  console.log(`${name}: ${isDone ? "done" : "undone"}, all else as it was`);
  if (isDone) await reset(api);
  assert.deepEqual(await state(api), record.before, `${name}: reset`);
}

const step = steps[record.step + 1];
if (step) {
  const count = await points(() => step.run(api));
  const after = await state(api);
  await step.reset(api);
  assert.deepEqual(await state(api), record.before, `${step.name}: the step does not reset`);
  // Flush all that was written before: only the next operation is tested.
  await succeed(["sync"]);
  save({ step: record.step + 1, before: record.before, after });
  writeFileSync(
    faultFile,
    step.at === 1 ? `count 0 ${Math.random()}` : `cut ${Math.max(1, Math.round(count * step.at))} x`,
  );
  await step.run(api);
  writeFileSync(`${process.env.LIDO_CUT_FILE}.new`, step.name);
  renameSync(`${process.env.LIDO_CUT_FILE}.new`, process.env.LIDO_CUT_FILE!);
  await new Promise(() => setInterval(() => {}, 1_000_000)); // the host sees the file, and kills this machine
}
console.log("all steps were cut off");
process.exit(0);
