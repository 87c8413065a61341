/** Known volumes, and unknown ones on the same disks that have the very names in the requests. Whatever is requested, in any order, killed or
 * failed, nothing that the daemon did not make has changed, by checksum. A failing case prints its seed; $LIDO_SEED runs it again,
 * $LIDO_STRANGER_RUNS sets the number of runs, without a time limit. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import fc from "fast-check";
import { Daemon, projectRoot } from "../support/daemon.ts";
import { RawClient } from "../support/raw.ts";
import { Strangers } from "../support/strangers.ts";

/** Time for this test in the whole suite. */
const shareMs = 12_000;

const pools = ["fast", "plain"] as const;
const backup = readFileSync(join(projectRoot, "tests/fixtures/lxd-5.0.2-volume-snapshots.tar.gz"));

const pool = fc.constantFrom(...pools), name = fc.constantFrom("a", "b"), snapshot = fc.constantFrom("s", "snap0");
const noun = fc.constantFrom<Noun>("volume", "instance");
const verb = fc.constantFrom<Verb>(
  ...["create", "create", "snapshot", "snapshot", "automatic snapshot", "delete", "delete snapshot", "rename"] as const,
  ...[
    "rename snapshot",
    "copy",
    "copy snapshot",
    "move",
    "refresh",
    "restore",
    "group",
    "import",
    "broken import",
  ] as const,
);
const ask = fc.record({ noun, verb, pool, name, snapshot, to: fc.record({ pool, name, snapshot }) });
const step = fc.oneof(
  { weight: 12, arbitrary: fc.record({ kind: fc.constant("ask" as const), ask }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("kill" as const), ask, afterMs: fc.nat({ max: 60 }) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("plant" as const),
      noun,
      pool,
      name,
      snapshot: fc.option(snapshot, { nil: undefined }),
      how: fc.constantFrom("directory" as const, "subvolume" as const, "empty directory" as const),
    }),
  },
);

type Noun = "volume" | "instance";
type Verb =
  | "create"
  | "snapshot"
  | "automatic snapshot"
  | "delete"
  | "delete snapshot"
  | "rename"
  | "rename snapshot"
  | "copy"
  | "copy snapshot"
  | "move"
  | "refresh"
  | "restore"
  | "group"
  | "import"
  | "broken import";
type Ask = typeof ask extends fc.Arbitrary<infer One> ? One : never;
type Step = typeof step extends fc.Arbitrary<infer One> ? One : never;
type Request = readonly [method: string, path: string, body?: unknown, headers?: Record<string, string>];

/** The first steps of each case make something to work on. */
const opening: readonly Ask[] = ([["volume", "fast"], ["volume", "plain"], ["instance", "plain"]] as const)
  .map(([noun, pool]) => ({
    noun,
    pool,
    name: "a",
    snapshot: "s",
    verb: "create",
    to: { pool, name: "b", snapshot: "s" },
  }));

const custom = (pool: string) => `/1.0/storage-pools/${pool}/volumes/custom`;

/** @returns The request; undefined for a combination that has none. */
function requestOf({ noun, verb, pool, name, snapshot, to }: Ask): Request | undefined {
  const isVolume = noun === "volume";
  const all = isVolume ? custom(pool) : "/1.0/instances", one = `${all}/${name}`;
  const devices = (pool: string) => ({ root: { type: "disk", path: "/", pool } });
  const copy = (source: string, more: object = {}): Request =>
    isVolume
      ? ["POST", custom(to.pool), {
        name: to.name,
        type: "custom",
        source: { type: "copy", pool, name: source, ...more },
      }]
      : ["POST", all, { name: to.name, devices: devices(to.pool), source: { type: "copy", source } }];
  switch (verb) {
    case "create":
      if (isVolume) return ["POST", all, { name, type: "custom" }];
      return ["POST", all, { name, devices: devices(pool), source: { type: "none" } }];
    case "snapshot":
    case "automatic snapshot":
      return ["POST", `${one}/snapshots`, { name: verb === "snapshot" ? snapshot : "" }];
    case "delete":
      return ["DELETE", one];
    case "delete snapshot":
      return ["DELETE", `${one}/snapshots/${snapshot}`];
    case "rename":
      return ["POST", one, { name: to.name }];
    case "rename snapshot":
      return ["POST", `${one}/snapshots/${snapshot}`, { name: to.snapshot }];
    case "copy":
      return copy(name);
    case "copy snapshot":
      return copy(`${name}/${snapshot}`);
    case "restore":
      return ["PUT", one, { restore: snapshot }];
    case "move":
      return isVolume ? ["POST", one, { name: to.name, pool: to.pool }] : undefined;
    case "refresh":
      return isVolume ? copy(name, { refresh: true }) : undefined;
    case "group":
      if (!isVolume) return undefined;
      return ["POST", "/1.0/storage-snapshot-groups", {
        name: snapshot,
        volumes: pools.map((pool) => ({ pool, name })),
      }];
    case "import":
    case "broken import": {
      if (!isVolume) return undefined;
      const bytes = verb === "import" ? backup : backup.subarray(0, backup.length * 2 / 3);
      return ["POST", all, bytes, { "content-type": "application/octet-stream", "x-lxd-name": name }];
    }
  }
}

async function anything(): Promise<void> {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "fast", "btrfs", "size=1GiB");
  await daemon.ok("storage", "create", "plain", "dir");
  const raw = new RawClient(daemon.directory);
  const carryOut = async ([method, path, body, headers]: Request): Promise<string> => {
    const answer = await raw.ask(method, path, body, headers);
    if (answer.status === 202) return (await raw.end(answer.body.metadata.id)).err;
    return answer.status < 300 ? "" : answer.body.error;
  };
  const root = (pool: string) => join(daemon.directory, "storage-pools", pool);
  const place = (noun: Noun, pool: string, name: string, snapshot?: string) => {
    const [type, own] = noun === "volume" ? ["custom", `default_${name}`] : ["containers", name];
    return snapshot === undefined
      ? join(root(pool), type!, own!)
      : join(root(pool), `${type}-snapshots`, own!, snapshot);
  };
  /** Follows a volume's rename, which also renames the directory of its snapshots, with unknown ones in it. */
  const follow = ({ noun, verb, pool, name, to }: Ask, strangers: Strangers) => {
    // A move within a pool is a rename.
    if (verb !== "rename" && !(verb === "move" && pool === to.pool)) return;
    for (const pool of pools) {
      strangers.follow(join(place(noun, pool, name, "s"), ".."), join(place(noun, pool, to.name, "s"), ".."));
    }
  };
  const run = async (step: Step, strangers: Strangers): Promise<void> => {
    if (step.kind === "plant") {
      const path = place(step.noun, step.pool, step.name, step.snapshot);
      const how = step.pool === "plain" && step.how === "subvolume" ? "directory" : step.how;
      if (!existsSync(path)) strangers.plant(path, how);
      return;
    }
    const request = requestOf(step.ask);
    if (!request) return;
    if (step.kind === "kill") {
      const asked = carryOut(request).catch(() => {}); // the kill interrupts it
      await new Promise((resolve) => setTimeout(resolve, step.afterMs));
      await daemon.kill();
      await asked;
      await daemon.up();
      follow(step.ask, strangers);
      return;
    }
    const error = await carryOut(request);
    if (error === "") follow(step.ask, strangers);
    assert.doesNotMatch(error, /\[object|undefined|at .*\.ts:|\bE(NOTEMPTY|EXIST|NOENT|NOTDIR)\b/);
  };
  const { LIDO_SEED: seed, LIDO_STRANGER_RUNS: runs } = process.env;
  // Do not use fast-check's own limit: it does not wait for the end of the case that it interrupts.
  const until = runs === undefined ? Date.now() + shareMs : Infinity;
  const property = fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 30 }), async (steps) => {
    if (Date.now() > until) return;
    const strangers = new Strangers();
    try {
      for (const ask of opening) await run({ kind: "ask", ask }, strangers);
      for (const step of steps) {
        await run(step, strangers);
        assert.deepEqual(strangers.changed(), [], JSON.stringify(step));
      }
    } finally {
      strangers.remove();
      for (const name of ["a", "b"]) {
        await carryOut(["DELETE", `/1.0/instances/${name}`]);
        for (const pool of pools) await carryOut(["DELETE", `${custom(pool)}/${name}`]);
      }
    }
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  });
  await fc.assert(property, {
    numRuns: Number(runs ?? 100),
    ...(seed === undefined ? {} : { seed: Number(seed) }),
  });
}

Deno.test("storage: nothing that the daemon did not make is changed by anything it does", async () => {
  try {
    await anything();
  } catch (error) {
    // After a failure the cleanup often fails too: throw the first error.
    throw error instanceof SuppressedError ? error.suppressed : error;
  }
});
