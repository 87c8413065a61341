/** Volumes and snapshots on two pools against a model of them: each request, in any order, succeeds or fails as the model says, and the disk
 * matches the model, also after the daemon was killed in between. A failing case prints its seed; $LIDO_SEED runs it again. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import fc from "fast-check";
import { Daemon } from "../support/daemon.ts";
import { RawClient } from "../support/raw.ts";
import { storageState } from "../support/storage_state.ts";

const pools = ["fast", "plain"] as const, volumes = ["a", "b"], snapshots = ["s", "t"];
const place = fc.record({ pool: fc.constantFrom(...pools), name: fc.constantFrom(...volumes) });
const snapshot = fc.constantFrom(...snapshots);
const of = <K extends string, T>(kind: K, rest: { [Key in keyof T]: fc.Arbitrary<T[Key]> }) =>
  fc.record(
    { kind: fc.constant(kind), at: place, ...rest } as unknown as {
      [Key in keyof ({ kind: K; at: Place } & T)]: fc.Arbitrary<({ kind: K; at: Place } & T)[Key]>;
    },
  );
const step = fc.oneof(
  { weight: 6, arbitrary: of("create", {}) },
  { weight: 4, arbitrary: of("write", { text: fc.nat({ max: 1e6 }) }) },
  { weight: 4, arbitrary: of("snapshot", { snapshot }) },
  { weight: 2, arbitrary: of("delete", {}) },
  { weight: 1, arbitrary: of("delete snapshot", { snapshot }) },
  { weight: 1, arbitrary: of("rename snapshot", { snapshot, to: snapshot }) },
  { weight: 2, arbitrary: of("restore", { snapshot }) },
  { weight: 2, arbitrary: of("rename", { to: fc.constantFrom(...volumes) }) },
  { weight: 4, arbitrary: of("copy", { to: place, isBare: fc.boolean() }) },
  { weight: 3, arbitrary: of("copy snapshot", { snapshot, to: place }) },
  { weight: 2, arbitrary: of("move", { to: place }) },
  { weight: 2, arbitrary: of("refresh", { to: place, isBare: fc.boolean() }) },
  { weight: 1, arbitrary: of("kill", {}) },
);
/** The first steps of each case make volumes to work on. */
const opening: readonly Step[] = [
  { kind: "create", at: { pool: "fast", name: "a" } },
  { kind: "write", at: { pool: "fast", name: "a" }, text: 1 },
  { kind: "snapshot", at: { pool: "fast", name: "a" }, snapshot: "s" },
];

type Step = typeof step extends fc.Arbitrary<infer One> ? One : never;

interface Place {
  readonly pool: string;
  readonly name: string;
}

interface Content {
  text: string;
  readonly snapshots: Map<string, string>;
}

/** "pool/name" → content of the volume. */
type Model = Map<string, Content>;

const keyOf = ({ pool, name }: Place) => `${pool}/${name}`;
const copyOf = (content: Content): Content => ({ text: content.text, snapshots: new Map(content.snapshots) });

/** Applies a step to the model. @returns Whether the step succeeds; if not, the model is unchanged. */
function follow(model: Model, step: Step): boolean {
  const here = model.get(keyOf(step.at));
  if (step.kind === "kill") return true;
  if (step.kind === "create") {
    if (here) return false;
    model.set(keyOf(step.at), { text: "", snapshots: new Map() });
    return true;
  }
  if (!here) return false;
  switch (step.kind) {
    case "write":
      here.text = String(step.text);
      return true;
    case "delete":
      return model.delete(keyOf(step.at));
    case "snapshot":
      if (here.snapshots.has(step.snapshot)) return false;
      here.snapshots.set(step.snapshot, here.text);
      return true;
    case "delete snapshot":
      return here.snapshots.delete(step.snapshot);
    case "rename snapshot": {
      const text = here.snapshots.get(step.snapshot);
      if (text === undefined || here.snapshots.has(step.to)) return false;
      here.snapshots.delete(step.snapshot);
      here.snapshots.set(step.to, text);
      return true;
    }
    case "restore": {
      const text = here.snapshots.get(step.snapshot);
      if (text !== undefined) here.text = text;
      return text !== undefined;
    }
    case "rename":
    case "move": {
      const to = step.kind === "move" ? keyOf(step.to) : keyOf({ ...step.at, name: step.to });
      if (model.has(to)) return false;
      model.delete(keyOf(step.at));
      model.set(to, here);
      return true;
    }
    case "copy":
    case "copy snapshot": {
      const text = step.kind === "copy" ? here.text : here.snapshots.get(step.snapshot);
      if (model.has(keyOf(step.to)) || text === undefined) return false;
      const isWhole = step.kind === "copy" && !step.isBare;
      model.set(keyOf(step.to), isWhole ? copyOf(here) : { text, snapshots: new Map() });
      return true;
    }
    case "refresh": {
      const there = model.get(keyOf(step.to));
      if (there === here) return false;
      // Without an existing target, a refresh is a plain copy.
      const kept = step.isBare ? there?.snapshots ?? new Map() : new Map(here.snapshots);
      model.set(keyOf(step.to), { text: here.text, snapshots: kept });
      return true;
    }
  }
}

const custom = (pool: string) => `/1.0/storage-pools/${pool}/volumes/custom`;

/** Method, path and body of a step; undefined for a step without a request. */
function requestOf(step: Step): [string, string, object?] | undefined {
  const { at } = step;
  const one = `${custom(at.pool)}/${at.name}`;
  const copy = (to: Place, name: string, more: object): [string, string, object] => [
    "POST",
    custom(to.pool),
    { name: to.name, type: "custom", source: { type: "copy", pool: at.pool, name, ...more } },
  ];
  switch (step.kind) {
    case "create":
      return ["POST", custom(at.pool), { name: at.name, type: "custom" }];
    case "delete":
      return ["DELETE", one];
    case "snapshot":
      return ["POST", `${one}/snapshots`, { name: step.snapshot }];
    case "delete snapshot":
      return ["DELETE", `${one}/snapshots/${step.snapshot}`];
    case "rename snapshot":
      return ["POST", `${one}/snapshots/${step.snapshot}`, { name: step.to }];
    case "restore":
      return ["PUT", one, { restore: step.snapshot }];
    case "rename":
      return ["POST", one, { name: step.to }];
    case "move":
      return ["POST", one, { name: step.to.name, pool: step.to.pool }];
    case "copy":
      return copy(step.to, at.name, { volume_only: step.isBare });
    case "copy snapshot":
      return copy(step.to, `${at.name}/${step.snapshot}`, {});
    case "refresh":
      return copy(step.to, at.name, { volume_only: step.isBare, refresh: true });
  }
  return undefined;
}

/** Reads the disk in the shape of the model. */
async function onDisk(daemon: Daemon): Promise<Model> {
  const found: Model = new Map();
  const read = (pool: string, ...path: string[]) => {
    try {
      return readFileSync(join(daemon.directory, "storage-pools", pool, ...path, "data"), "utf8");
    } catch {
      return "";
    }
  };
  for (const one of await storageState(daemon, pools)) {
    const [pool, name, snapshot] = one.split("/") as [string, string, string?];
    const key = keyOf({ pool, name });
    if (snapshot === undefined) {
      found.set(key, { text: read(pool, "custom", `default_${name}`), snapshots: new Map() });
    } else {
      found.get(key)!.snapshots.set(snapshot, read(pool, "custom-snapshots", `default_${name}`, snapshot));
    }
  }
  return found;
}

const plain = (model: Model) =>
  [...model].map(([key, { text, snapshots }]) => ({ key, text, snapshots: [...snapshots].sort() }))
    .sort((a, b) => a.key < b.key ? -1 : 1);

Deno.test("storage: any requests in any order do what a model of them says", async () => {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "fast", "btrfs", "size=1GiB");
  await daemon.ok("storage", "create", "plain", "dir");
  const raw = new RawClient(daemon.directory);
  /** @returns The error text; "" if it succeeded. */
  const ask = async (method: string, path: string, body?: object): Promise<string> => {
    const answer = await raw.ask(method, path, body);
    if (answer.status === 202) return (await raw.wait(answer.body.metadata.id)).err;
    return answer.status < 300 ? "" : answer.body.error;
  };
  const carryOut = async (step: Step): Promise<string> => {
    if (step.kind === "kill") {
      await daemon.kill();
      await daemon.up();
      return "";
    }
    if (step.kind !== "write") return await ask(...requestOf(step)!);
    const { pool, name } = step.at;
    try {
      const path = join(daemon.directory, "storage-pools", pool, "custom", `default_${name}`, "data");
      writeFileSync(path, String(step.text));
      return "";
    } catch (error) {
      return String(error);
    }
  };
  const property = fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), async (steps) => {
    const model: Model = new Map();
    try {
      for (const step of [...opening, ...steps]) {
        const isPossible = follow(model, step);
        const error = await carryOut(step);
        assert.equal(error === "", isPossible, `${JSON.stringify(step)}: ${error || "it was done"}`);
        assert.doesNotMatch(error, /\[object|undefined|at .*\.ts:/);
      }
      assert.deepEqual(plain(await onDisk(daemon)), plain(model));
      assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
    } finally {
      for (const key of (await onDisk(daemon)).keys()) {
        const [pool, name] = key.split("/") as [string, string];
        assert.equal(await ask("DELETE", `${custom(pool)}/${name}`), "");
      }
    }
  });
  const seed = process.env.LIDO_SEED;
  await fc.assert(property, {
    numRuns: Number(process.env.LIDO_STORAGE_RUNS ?? 15),
    ...(seed === undefined ? {} : { seed: Number(seed) }),
  });
});
