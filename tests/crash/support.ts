/** What the crash tests have in common: a daemon that is cut off at its n-th point, and the two ends that an operation may have. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { succeed } from "../support/command.ts";
import { Daemon, projectRoot } from "../support/daemon.ts";
import { RawClient } from "../support/raw.ts";
import { findTraces } from "../support/traces.ts";

/** More points than any operation has; one that comes here never ends. */
const pointsMax = 200;
/** Each point by default; on a slow machine one of so many of each operation, a different one of the next. */
const everyNth = Number(process.env.LIDO_CRASH_EVERY ?? 1);
/** The suite "crash-all": calls of the file system are points too, and changes may also be made and then fail, or hang. */
const isAll = process.env.LIDO_CRASH_ALL === "1";
const modes = process.env.LIDO_CRASH_MODES?.split(",") ??
  (isAll ? ["kill", "fail", "late", "hang", "cancel"] : ["kill", "fail", "cancel"]);
/** Whether only what is on the pool that the suite is run on is cut off, where the other drivers' turn was on another machine. */
export const isFastAlone = process.env.LIDO_CRASH_POOLS === "fast";

/** Compiled as the shipped one is: it is started some hundred times, and from its sources it would take three times as long each time. */
export const faultyDaemon = join(projectRoot, isAll ? "dist/lido-crash-all" : "dist/lido-crash");

/** Built again when something that it is made of is newer. */
async function buildWithFiles(): Promise<void> {
  const sources = ["api", "drivers", "server", "tests/crash"].flatMap((room) =>
    readdirSync(join(projectRoot, room), { recursive: true }).map((name) => join(projectRoot, room, String(name)))
  ).filter((path) => path.endsWith(".ts"));
  const builtAt = statSync(faultyDaemon, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (sources.every((path) => statSync(path).mtimeMs < builtAt)) return;
  const workers = sources.filter((path) => path.endsWith("_worker.ts")).sort();
  // Beside it and moved, so that an interrupted build leaves none that is half one.
  const partial = `${faultyDaemon}-partial`;
  const argv = [join(projectRoot, "node_modules/.bin/bun"), join(projectRoot, "tests/crash/build.ts"), partial];
  await succeed([...argv, ...workers], { timeoutMs: 300_000 });
  renameSync(partial, faultyDaemon);
}

export async function startDaemon(): Promise<Daemon> {
  return await Daemon.start({ argv: [await prepareDaemon()] });
}

/** @returns The path of the daemon that can be cut off, built if something has changed. */
export async function prepareDaemon(): Promise<string> {
  if (isAll) await buildWithFiles();
  else {
    await succeed(["bash", join(projectRoot, "scripts/build.sh"), "", faultyDaemon, "tests/crash/daemon.ts"], {
      timeoutMs: 300_000,
    });
  }
  return faultyDaemon;
}

/** Requests that must succeed; what the daemon's death does to them is the caller's. */
export class Requests {
  readonly raw: RawClient;
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
    this.raw = new RawClient(directory);
  }

  // deno-lint-ignore no-explicit-any
  async ask(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<any> {
    const answer = await this.raw.ask(method, `/1.0${path}`, body, headers);
    if (answer.status >= 400) throw new Error(`${method} ${path}: ${answer.body.error}`);
    if (answer.status !== 202) return answer.body.metadata;
    const operation = await this.raw.end(answer.body.metadata.id);
    if (operation.status_code !== 200) throw new Error(`${method} ${path}: ${operation.err}`);
  }
}

export interface Scenario<Api> {
  readonly name: string;
  readonly run: (api: Api) => Promise<void>;
  /** Back to what was before, from what is after. */
  readonly reset: (api: Api) => Promise<void>;
}

export type State = Record<string, string>;

/** What there is below a directory: content, owners and modes. */
export function digest(path: string): string {
  const hash = createHash("sha256");
  const walk = (at: string, name: string) => {
    const info = lstatSync(at);
    hash.update(`${name} ${info.mode} ${info.uid} ${info.gid} ${info.isDirectory() ? "" : info.size}\n`);
    if (info.isFile()) hash.update(readFileSync(at));
    if (info.isSymbolicLink()) hash.update(readlinkSync(at));
    if (info.isDirectory()) { for (const entry of readdirSync(at).sort()) walk(join(at, entry), `${name}/${entry}`); }
  };
  walk(path, "");
  return hash.digest("hex").slice(0, 16);
}

export class CutOff<Api extends Requests> {
  readonly #daemon: Daemon;
  readonly #api: Api;
  readonly #state: () => Promise<State>;
  #before: State = {};
  #host = { loops: 0, mounts: 0 };
  #armed = 0;
  #offset = 0;
  points = 0;

  /** @param state All that users can see, on disk and by the API; times and ids apart. */
  constructor(daemon: Daemon, api: Api, state: () => Promise<State>) {
    this.#daemon = daemon;
    this.#api = api;
    this.#state = state;
  }

  /** Takes what there is now for what is to be again. */
  async begin(): Promise<void> {
    this.#before = await this.#state();
    this.#host = this.#traces();
  }

  /** From the daemon's next point on, and from its next start on. @param fault As tests/crash/daemon.ts has it; empty: none. */
  arm(fault: string): void {
    const file = `${this.#daemon.directory}.fault`;
    if (fault === "") rmSync(file, { force: true });
    else writeFileSync(file, `${fault} ${this.#armed++}`);
  }

  /** Starts the daemon again. @returns Whether it came up. */
  async #up(): Promise<boolean> {
    return await this.#daemon.up().then(() => true, async () => {
      await this.#daemon.ended;
      return false;
    });
  }

  /** Starts the daemon again after a clean end; nothing is to happen. */
  async restart(): Promise<void> {
    this.arm("");
    await this.#daemon.terminate();
    await this.#daemon.up();
  }

  /** Cuts an operation off at each of its points: by a kill, by a change that fails, by one that is made and then fails, by a command that hangs, and
   * by a cancel, until it comes too late. */
  async scenario({ name, run, reset }: Scenario<Api>): Promise<void> {
    await run(this.#api);
    const after = await this.#state();
    assert.notDeepEqual(after, this.#before);
    await reset(this.#api);
    assert.deepEqual(await this.#state(), this.#before, "the scenario does not reset");
    for (const mode of modes) {
      for (let point = 1 + this.#offset++ % everyNth;; point += everyNth) {
        assert.ok(point < pointsMax, "no end of points");
        this.arm(`${mode} ${point}`);
        const outcome = await run(this.#api).then(() => "ended", (error) => String(error));
        this.arm("");
        const what = `${name}, ${mode} at point ${point} (${outcome})`;
        if (mode === "kill" && outcome !== "ended") {
          const isAlive = await this.#api.ask("GET", "").then(() => true, () => false);
          assert.ok(!isAlive, `${what}: it has failed by itself`);
          await this.#daemon.ended;
          await this.#daemon.up();
        }
        // While the daemon lives, it must have brought it to one of the two ends itself, at once.
        const isDone = await this.isWhole(after, what);
        if (mode === "cancel") assert.equal(isDone, outcome === "ended", `${what}: not what its client was told`);
        if (isDone) await reset(this.#api);
        assert.deepEqual(this.#traces(), this.#host, `${what}: left behind`);
        this.points++;
        if (outcome === "ended") break;
      }
    }
    // What failures left in the database and nowhere else, a start would find.
    await this.restart();
    assert.equal(await this.isWhole(after, `${name}, after a restart`), false);
  }

  /** @param run An operation that the n-th point of the daemon cuts off; then the next daemon is killed at each point of its start. */
  async nested(point: number, run: (api: Api) => Promise<void>): Promise<void> {
    for (let inStart = 1; inStart < pointsMax; inStart += everyNth) {
      this.arm(`kill ${point}`);
      await assert.rejects(run(this.#api), "the operation has fewer points");
      await this.#daemon.ended;
      this.arm(`kill ${inStart}`);
      const isUp = await this.#up();
      this.arm("");
      if (!isUp) await this.#daemon.up();
      assert.equal(await this.isWhole({}, `killed at point ${inStart} of the start`), false);
      this.points++;
      if (isUp) return;
    }
  }

  /** @returns Whether the operation was done; fails when it was neither done nor undone. */
  async isWhole(after: State, what: string): Promise<boolean> {
    assert.deepEqual(await this.#api.ask("POST", "/check", {}), [], `${what}: check`);
    const now = await this.#state();
    const isDone = JSON.stringify(sorted(now)) === JSON.stringify(sorted(after));
    if (!isDone) assert.deepEqual(now, this.#before, what);
    return isDone;
  }

  #traces(): { loops: number; mounts: number } {
    const { loops, mounts } = findTraces(this.#daemon.directory);
    return { loops: loops.length, mounts: mounts.length };
  }
}

/** One step for each scenario whose name matches $LIDO_CRASH_SCENARIOS. One that failed leaves another state than the next begins with, so it is the last. */
export async function runAll<Api extends Requests>(
  t: Deno.TestContext,
  cutOff: CutOff<Api>,
  scenarios: readonly Scenario<Api>[],
): Promise<boolean> {
  const wanted = new RegExp(process.env.LIDO_CRASH_SCENARIOS ?? "");
  const chosen = scenarios.filter(({ name }) => wanted.test(name));
  assert.ok(chosen.length > 0, `no scenario matches ${wanted}`);
  const leaveOut = (name: string) => t.step({ name, ignore: true, fn: () => {} });
  if (isFastAlone) await leaveOut("all on a pool of directories: $LIDO_CRASH_POOLS is fast");
  for (const scenario of scenarios.filter((one) => !chosen.includes(one))) {
    await leaveOut(`${scenario.name}: not asked for by $LIDO_CRASH_SCENARIOS`);
  }
  for (const scenario of chosen) {
    if (!await t.step(scenario.name, () => cutOff.scenario(scenario))) return false;
  }
  return true;
}

function sorted(value: State): [string, string][] {
  return Object.entries(value).sort(([left], [right]) => left < right ? -1 : 1);
}
