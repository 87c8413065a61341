/** Shared by the crash tests: interrupts the daemon at its n-th point and checks that the operation ended in one of its two allowed states. */
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

/** More points than any operation has; reaching it means that the operation never ends. */
const pointsMax = 200;
/** 1: test each point. On a slow machine: only every n-th point, with a different first point each time. */
const everyNth = Number(process.env.LIDO_CRASH_EVERY ?? 1);
/** The suite "crash-all": calls of the file system are points too, and the modes "late" and "hang" are added. */
const isAll = process.env.LIDO_CRASH_ALL === "1";
const modes = process.env.LIDO_CRASH_MODES?.split(",") ??
  (isAll ? ["kill", "fail", "late", "hang", "cancel"] : ["kill", "fail", "cancel"]);
/** Whether to test only the pool "fast": the other drivers are tested on another machine. */
export const isFastAlone = process.env.LIDO_CRASH_POOLS === "fast";

/** Compiled, as the shipped daemon: it is started some hundred times, and from its sources each start would take three times as long. */
export const faultyDaemon = join(projectRoot, isAll ? "dist/lido-crash-all" : "dist/lido-crash");

/** Rebuilds the daemon when one of its sources is newer. */
async function buildWithFiles(): Promise<void> {
  const sources = ["api", "drivers", "server", "tests/crash"].flatMap((room) =>
    readdirSync(join(projectRoot, room), { recursive: true }).map((name) => join(projectRoot, room, String(name)))
  ).filter((path) => path.endsWith(".ts"));
  const builtAt = statSync(faultyDaemon, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (sources.every((path) => statSync(path).mtimeMs < builtAt)) return;
  const workers = sources.filter((path) => path.endsWith("_worker.ts")).sort();
  // Build beside it and rename, so that an interrupted build leaves no half-written file.
  const partial = `${faultyDaemon}-partial`;
  const argv = [join(projectRoot, "node_modules/.bin/bun"), join(projectRoot, "tests/crash/build.ts"), partial];
  await succeed([...argv, ...workers], { timeoutMs: 300_000 });
  renameSync(partial, faultyDaemon);
}

export async function startDaemon(): Promise<Daemon> {
  return await Daemon.start({ argv: [await prepareDaemon()] });
}

/** @returns Path of the daemon with points, rebuilt if sources have changed. */
export async function prepareDaemon(): Promise<string> {
  if (isAll) await buildWithFiles();
  else {
    await succeed(["bash", join(projectRoot, "scripts/build.sh"), "", faultyDaemon, "tests/crash/daemon.ts"], {
      timeoutMs: 300_000,
    });
  }
  return faultyDaemon;
}

/** Requests that must succeed; the caller handles the errors that the daemon's death causes. */
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
  /** Undoes `run`: restores the state before it. */
  readonly reset: (api: Api) => Promise<void>;
}

export type State = Record<string, string>;

/** Digest of all below a directory: content, owners and modes. */
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

  /** @param state All state that users can see, on disk and by the API, without times and ids. */
  constructor(daemon: Daemon, api: Api, state: () => Promise<State>) {
    this.#daemon = daemon;
    this.#api = api;
    this.#state = state;
  }

  /** Records the present state as the one that every reset must restore. */
  async begin(): Promise<void> {
    this.#before = await this.#state();
    this.#host = this.#traces();
  }

  /** Sets a fault that counts from the daemon's next point or next start. @param fault One of tests/crash/points.ts; empty: none. */
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

  /** Restarts the daemon cleanly, without a fault. */
  async restart(): Promise<void> {
    this.arm("");
    await this.#daemon.terminate();
    await this.#daemon.up();
  }

  /** Interrupts an operation at each of its points: by a kill, by a change that fails, by a change that is made and then fails, by a command that
   * hangs, and by a cancel, until the operation ends before the fault is due. */
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
        // A living daemon must have rolled back or completed the operation itself, at once.
        const isDone = await this.isWhole(after, what);
        if (mode === "cancel") assert.equal(isDone, outcome === "ended", `${what}: not what its client was told`);
        if (isDone) await reset(this.#api);
        assert.deepEqual(this.#traces(), this.#host, `${what}: left behind`);
        this.points++;
        if (outcome === "ended") break;
      }
    }
    // A start finds what failures left in the database alone.
    await this.restart();
    assert.equal(await this.isWhole(after, `${name}, after a restart`), false);
  }

  /** Kills the daemon at its n-th point during `run`, and then the next daemon at each point of its start. */
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

  /** @returns Whether the operation was done. @throws {AssertionError} If it was neither done nor undone. */
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

/** Runs a step for each scenario whose name matches $LIDO_CRASH_SCENARIOS. Stops after a failed one: the next would begin with a wrong state. */
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
