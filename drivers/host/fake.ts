import { Readable } from "node:stream";
import {
  CommandError,
  type ConfinedTools,
  type Host,
  type Loops,
  type MountEntry,
  type Mounts,
  type PipedCommand,
  type PipeOptions,
  type ProjectQuotas,
  type RunOptions,
  type RunResult,
} from "./host.ts";

/** A tool's answer: its standard output, or the whole result. Absent: it succeeds without output. */
export type Answer = string | Partial<RunResult> | undefined;

const noQuotas: ProjectQuotas = {
  probe: () => Promise.resolve({ absent: "a host for tests has no quotas" }),
  assign: () => Promise.resolve(),
  adopt: () => Promise.resolve(),
  usage: () => Promise.resolve(undefined),
  limit: () => Promise.resolve(),
  release: () => Promise.resolve(),
};

/** A host for tests: it records all calls in order and answers from a script. Nothing outside the process is touched; mounts and
 * loop devices are kept in memory. */
export class FakeHost implements Host {
  /** All calls: argv lists joined by spaces; mounts as `mount(2) SOURCE TARGET`, `umount(2) TARGET`. */
  readonly seen: string[] = [];
  /** The argv of each process that would have been started. */
  readonly processes: string[][] = [];
  readonly mounts: Mounts;
  readonly loops: Loops;
  readonly quotas: ProjectQuotas = noQuotas;
  readonly #answer: (argv: readonly string[]) => Answer;
  readonly #missing: ReadonlySet<string>;

  /** @param answer The script. @param options.missing Tools that are not installed. @param options.canIdmap Whether the kernel has idmapped
   * mounts. */
  constructor(
    answer: (argv: readonly string[]) => Answer = () => undefined,
    options: { missing?: readonly string[]; canIdmap?: boolean } = {},
  ) {
    this.#answer = answer;
    this.#missing = new Set(options.missing);
    this.mounts = new FakeMounts(this.seen, options.canIdmap ?? true);
    this.loops = new FakeLoops(this.seen);
  }

  // deno-lint-ignore require-await -- async as the contract: a failure is a rejection
  async run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const { code, stdout, stderr } = this.#start(argv);
    if (!(options.okCodes ?? [0]).includes(code)) throw new CommandError(argv, code, stderr);
    return { code, stdout, stderr };
  }

  pipe(argv: readonly string[], options: PipeOptions = {}): PipedCommand {
    const { code, stdout, stderr } = this.#start(argv);
    const isFailure = !(options.okCodes ?? [0]).includes(code);
    options.stdin?.resume();
    const done = isFailure ? Promise.reject(new CommandError(argv, code, stderr)) : Promise.resolve();
    done.catch(() => {});
    return { stdout: Readable.from([Buffer.from(stdout)]), done };
  }

  /** As `run` and `pipe`: the confinement is not checked. */
  confined(): ConfinedTools {
    return { run: (argv, options) => this.run(argv, options), pipe: (argv, options) => this.pipe(argv, options) };
  }

  which(tool: string): Promise<string | undefined> {
    return Promise.resolve(this.#missing.has(tool) ? undefined : `/usr/sbin/${tool}`);
  }

  #start(argv: readonly string[]): RunResult {
    this.seen.push(argv.join(" "));
    this.processes.push([...argv]);
    const answer = this.#answer(argv);
    return { code: 0, stdout: "", stderr: "", ...(typeof answer === "string" ? { stdout: answer } : answer) };
  }
}

class FakeMounts implements Mounts {
  readonly #seen: string[];
  readonly #canIdmap: boolean;
  #entries: MountEntry[] = [];

  constructor(seen: string[], canIdmap: boolean) {
    this.#seen = seen;
    this.#canIdmap = canIdmap;
  }

  mount(source: string, target: string, type: string, options: readonly string[] = []): Promise<void> {
    this.#seen.push(`mount(2) ${source} ${target}`);
    const id = this.#entries.length + 1;
    this.#entries.push({ id, device: `0:${id}`, root: "/", target, options, type, source, superOptions: [] });
    return Promise.resolve();
  }

  bind(source: string, target: string): Promise<void> {
    return this.mount(source, target, "none", ["bind"]);
  }

  forbidDevices(): Promise<void> {
    return Promise.resolve();
  }

  unmount(target: string): Promise<void> {
    this.#seen.push(`umount(2) ${target}`);
    this.#entries = this.#entries.filter((entry) => entry.target !== target);
    return Promise.resolve();
  }

  list(): Promise<MountEntry[]> {
    return Promise.resolve([...this.#entries]);
  }

  at(target: string): Promise<MountEntry | undefined> {
    return Promise.resolve(this.#entries.findLast((entry) => entry.target === target));
  }

  canIdmap(): Promise<boolean> {
    return Promise.resolve(this.#canIdmap);
  }
}

class FakeLoops implements Loops {
  readonly #seen: string[];
  readonly #files = new Map<string, string>();

  constructor(seen: string[]) {
    this.#seen = seen;
  }

  attach(file: string): Promise<string> {
    const device = `/dev/loop${this.#files.size}`;
    this.#seen.push(`attach ${file}`);
    this.#files.set(device, file);
    return Promise.resolve(device);
  }

  detach(device: string): Promise<void> {
    this.#seen.push(`detach ${device}`);
    this.#files.delete(device);
    return Promise.resolve();
  }

  list(): Promise<{ device: string; file: string; isDeleted: boolean }[]> {
    return Promise.resolve([...this.#files].map(([device, file]) => ({ device, file, isDeleted: false })));
  }

  find(file: string): Promise<string[]> {
    return Promise.resolve([...this.#files].filter(([, attached]) => attached === file).map(([device]) => device));
  }

  refresh(device: string): Promise<void> {
    this.#seen.push(`refresh ${device}`);
    return Promise.resolve();
  }
}
