/** What the crash tests have in common: a daemon that is cut off at its n-th point, and the two ends that an operation may have. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { Daemon, projectRoot } from "../support/daemon.ts";
import { RawClient } from "../support/raw.ts";
import { findTraces } from "../support/traces.ts";

const argv = [join(projectRoot, "node_modules/.bin/bun"), join(projectRoot, "tests/crash/daemon.ts")];
/** More points than any operation has; one that comes here never ends. */
const pointsMax = 200;

export const startDaemon = (): Promise<Daemon> => Daemon.start({ argv });

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
    const operation = await this.raw.wait(answer.body.metadata.id);
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

  /** Restarts the daemon. @param fault As tests/crash/daemon.ts has it. @returns Whether it came up. */
  async restart(fault = "", options: { isKilled?: boolean; fromStart?: boolean } = {}): Promise<boolean> {
    if (!options.isKilled) await this.#daemon.terminate();
    this.#daemon.faults = { LIDO_FAULT: fault, LIDO_FAULT_START: options.fromStart ? "1" : "" };
    return await this.#daemon.up().then(() => true, async (error) => {
      if (!options.fromStart) throw error;
      await this.#daemon.ended;
      return false;
    });
  }

  /** Cuts an operation off at each of its points, once by a kill and once by a command that fails. */
  async scenario({ name, run, reset }: Scenario<Api>): Promise<void> {
    await run(this.#api);
    const after = await this.#state();
    assert.notDeepEqual(after, this.#before);
    await reset(this.#api);
    assert.deepEqual(await this.#state(), this.#before, "the scenario does not reset");
    for (const mode of ["kill", "fail"]) {
      for (let point = 1;; point++) {
        assert.ok(point < pointsMax, "no end of points");
        await this.restart(`${mode}:${point}`);
        const outcome = await run(this.#api).then(() => "ended", (error) => String(error));
        const what = `${name}, ${mode} at point ${point} (${outcome})`;
        const isKilled = mode === "kill" && outcome !== "ended";
        if (isKilled) await this.#daemon.ended;
        // While the daemon lives, it must have brought it to one of the two ends itself, at once.
        if (mode === "fail" && outcome !== "ended") await this.isWhole(after, `${what}, at once`);
        await this.restart("", { isKilled });
        if (await this.isWhole(after, what)) await reset(this.#api);
        assert.deepEqual(this.#traces(), this.#host, `${what}: left behind`);
        this.points++;
        if (outcome === "ended") break;
      }
    }
  }

  /** @param run An operation that the n-th point of the daemon cuts off; then the next daemon is killed at each point of its start. */
  async nested(point: number, run: (api: Api) => Promise<void>): Promise<void> {
    for (let inStart = 1; inStart < pointsMax; inStart++) {
      await this.restart(`kill:${point}`);
      await assert.rejects(run(this.#api), "the operation has fewer points");
      await this.#daemon.ended;
      const isUp = await this.restart(`kill:${inStart}`, { isKilled: true, fromStart: true });
      await this.restart("", { isKilled: !isUp });
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

/** One step for each scenario. One that failed leaves another state than the next begins with, so it is the last. */
export async function runAll<Api extends Requests>(
  t: Deno.TestContext,
  cutOff: CutOff<Api>,
  scenarios: readonly Scenario<Api>[],
): Promise<boolean> {
  for (const scenario of scenarios) {
    if (!await t.step(scenario.name, () => cutOff.scenario(scenario))) return false;
  }
  return true;
}

function sorted(value: State): [string, string][] {
  return Object.entries(value).sort(([left], [right]) => left < right ? -1 : 1);
}
