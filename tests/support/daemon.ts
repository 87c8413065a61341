import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { command, type CommandOptions, type Outcome, succeed } from "./command.ts";
import { slowness } from "./slowness.ts";
import { describe, findTraces, sweep } from "./traces.ts";

export const projectRoot = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** The shipped executable. $LIDO_BINARY selects another, such as an installed one. */
export const executable = process.env.LIDO_BINARY ?? join(projectRoot, "dist/lido");

/** Driver and configuration of the pool `fast`. $LIDO_TEST_POOL replaces them, as words of `lido storage create`. */
export const fastPool: readonly string[] = (process.env.LIDO_TEST_POOL ?? "btrfs size=1GiB").split(" ");

/** The same pool as an API request. @param overrides Additional configuration. */
export function fastPoolRequest(
  overrides: Record<string, string> = {},
): { driver: string; config: Record<string, string> } {
  const [driver, ...pairs] = fastPool;
  const config = Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s) as [string, string]));
  return { driver: driver!, config: { ...config, ...overrides } };
}

/** A daemon of the shipped executable with its own directory, and clients that talk to it. */
export class Daemon implements AsyncDisposable {
  readonly directory: string;
  readonly #argv: readonly string[];
  #child: ChildProcess | undefined;
  /** Settles when the daemon process has ended. */
  #ended: Promise<number> = Promise.resolve(0);

  private constructor(directory: string, argv: readonly string[]) {
    this.directory = directory;
    this.#argv = argv;
  }

  /** Starts a daemon and waits until it serves.
   * @param options.argv Command line; the shipped executable when absent. @param options.directory The daemon's directory, which must not exist
   * yet; its log is beside it. */
  static async start(
    options: { argv?: readonly string[]; flags?: readonly string[]; directory?: string } = {},
  ): Promise<Daemon> {
    const directory = options.directory ?? mkdtempSync(join(tmpdir(), "lido-sys-"));
    const daemon = new Daemon(directory, [...(options.argv ?? [executable]), "daemon", ...(options.flags ?? [])]);
    try {
      await daemon.up();
    } catch (error) {
      await sweep(directory);
      throw error;
    }
    return daemon;
  }

  /** Settles with the exit code when the daemon process has ended. */
  get ended(): Promise<number> {
    return this.#ended;
  }

  get pid(): number {
    return this.#child?.pid ?? assert.fail("the daemon does not run");
  }

  get log(): string {
    return readFileSync(`${this.directory}.log`, "utf8");
  }

  get environment(): Record<string, string> {
    return { LIDO_DIR: this.directory, LXD_DIR: this.directory };
  }

  /** Starts the daemon (again) and waits until it serves. */
  async up(): Promise<void> {
    const log = openSync(`${this.directory}.log`, "a");
    const child = spawn(this.#argv[0]!, this.#argv.slice(1), {
      env: { ...process.env, ...this.environment },
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    this.#child = child;
    this.#ended = new Promise((resolve) => child.on("exit", (code) => resolve(code ?? 255)));
    const outcome = await Promise.race([
      command([executable, "waitready", "--timeout", String(30 * slowness)], {
        env: this.environment,
        timeoutMs: 40_000,
      }),
      this.#ended.then((code) => ({ code: code || 1 })),
    ]);
    if (outcome.code !== 0) throw new Error(`The daemon did not come up:\n${this.log}`);
  }

  /** Runs the native client to its end and returns any exit code. */
  lido(argv: readonly string[], options: CommandOptions = {}): Promise<Outcome> {
    return command([executable, ...argv], { ...options, env: { ...this.environment, ...options.env } });
  }

  /** Runs the native client, which must succeed. @returns Its output without the last newline. */
  ok(...argv: string[]): Promise<string> {
    return succeed([executable, ...argv], { env: this.environment });
  }

  /** Runs Debian's `lxc` against this daemon; it must succeed. */
  lxc(...argv: string[]): Promise<string> {
    const home = `${this.directory}.lxc`;
    return succeed(["lxc", ...argv], { env: { ...this.environment, HOME: home, LXD_CONF: home } });
  }

  /** Runs the native client, which must fail with one line "Error: …" and exit code 1.
   * @param pattern Must match the line. */
  async fails(argv: readonly string[], pattern: RegExp, options: CommandOptions = {}): Promise<void> {
    const { code, out, err } = await this.lido(argv, options);
    const words = `lido ${argv.join(" ")}`;
    assert.equal(code, 1, `"${words}" ended with ${code}\n${out}${err}`);
    assert.match(err, /^Error: [^\n]+\n$/, `"${words}" did not print one line "Error: ..." but ${JSON.stringify(err)}`);
    assert.match(err, pattern);
  }

  /** Sends a GET request. @returns The response's metadata. */
  async query(path: string): Promise<unknown> {
    return JSON.parse(await this.ok("query", path));
  }

  /** Stops the daemon cleanly by SIGTERM; containers keep running. @returns The daemon's exit code. */
  terminate(): Promise<number> {
    return this.#end("SIGTERM");
  }

  /** Stops the daemon by SIGKILL. */
  kill(): Promise<number> {
    return this.#end("SIGKILL");
  }

  #end(signal: "SIGTERM" | "SIGKILL"): Promise<number> {
    // Do not use the child's kill(): Deno then reports that the signal ended the process, even if it exited by itself.
    if (this.#child?.pid !== undefined) process.kill(this.#child.pid, signal);
    this.#child = undefined;
    return this.#ended;
  }

  /** Makes a pool that can clone, a pool that cannot, the image, and the default profile's root disk on the first pool. */
  async furnish(image: string): Promise<void> {
    await this.ok("storage", "create", "fast", ...fastPool);
    await this.ok("storage", "create", "plain", "dir");
    await this.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=fast");
    await this.ok("image", "import", image, "--alias", "bb");
  }

  /** Deletes everything by the API, as a user would. */
  async empty(): Promise<void> {
    const names = async (path: string) =>
      (await this.query(path) as string[]).filter((url) => !url.includes("/snapshots/")).map((url) =>
        decodeURIComponent(url.split("?")[0]!.split("/").at(-1)!)
      );
    for (const name of await names("/1.0/instances")) await this.ok("delete", "-f", name);
    for (const name of await names("/1.0/images")) await this.ok("image", "delete", name);
    const profile = await this.query("/1.0/profiles/default") as { devices: Record<string, unknown> };
    for (const device of Object.keys(profile.devices)) await this.ok("profile", "device", "remove", "default", device);
    for (const pool of await names("/1.0/storage-pools")) {
      for (const name of await names(`/1.0/storage-pools/${pool}/volumes/custom`)) {
        await this.ok("storage", "volume", "delete", pool, name);
      }
      await this.ok("storage", "delete", pool);
    }
  }

  /** One line for each trace that the daemon has on the host, without the daemon process. */
  traces(): string[] {
    const found = findTraces(this.directory);
    return describe({ ...found, processes: found.processes.filter(({ pid }) => pid !== this.#child?.pid) });
  }

  /** Asserts that the daemon has reaped every child that ended, now or within seconds. */
  async noZombies(): Promise<void> {
    const limit = performance.now() + 5_000 * slowness;
    for (let left; (left = zombiesOf(this.pid)).length > 0;) {
      assert.ok(performance.now() < limit, `not waited for: ${left.join(", ")}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Stops the daemon and asserts that nothing is left. Removes leftovers by force, so that they do not fail later tests. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      const isGone = !this.#child || this.#child.exitCode !== null || this.#child.signalCode !== null;
      if (isGone) await this.up();
      await this.empty();
      await this.ok("shutdown");
      await this.#ended;
      this.#child = undefined;
      assert.deepEqual(this.traces(), [], "left behind");
    } catch (error) {
      console.error(`The daemon's log ends with:\n${this.log.split("\n").slice(-25).join("\n")}`);
      throw error;
    } finally {
      await sweep(this.directory);
      await command(["rm", "-rf", `${this.directory}.log`, `${this.directory}.lxc`, `${this.directory}.fault`]);
    }
  }
}

function zombiesOf(parent: number): string[] {
  const children = readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8").split(" ").filter(Boolean);
  return children.flatMap((pid) => {
    try {
      const text = readFileSync(`/proc/${pid}/stat`, "utf8");
      return text.includes(") Z ") ? [text.slice(0, text.indexOf(")") + 1)] : [];
    } catch {
      return []; // it was reaped just now
    }
  });
}
