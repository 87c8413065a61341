import { stat } from "node:fs/promises";
import type {
  CommandSpec,
  CommandStdio,
  ConsoleTerminal,
  ContainerSpec,
  LaunchedCommand,
  Limits,
  MountPlace,
  MountSpec,
  RunningContainer,
  Runtime,
} from "../../drivers/runtime/runtime.ts";

type ExitListener = (name: string, status: { code?: number; signal?: number }) => void;

/** A runtime without containers: it records its calls, and the test decides when a container ends or a mount is refused. */
export class FakeRuntime implements Runtime {
  /** Calls in order, such as "start c1", "attach c1 /mnt". */
  readonly seen: string[] = [];
  readonly started = new Map<string, ContainerSpec>();
  /** Mounts by container and target. */
  readonly mounts = new Map<string, Map<string, MountSpec>>();
  /** Errors to throw, by the beginning of a line of `seen`; the first match counts. */
  readonly failures = new Map<string, Error>();
  /** Limits that were set on running containers. */
  readonly limits = new Map<string, Limits>();
  /** Containers whose init ends as soon as it is started. */
  readonly endsAtOnce = new Map<string, { code?: number; signal?: number }>();
  /** Output of consoles, by container. */
  readonly printed = new Map<string, string>();
  readonly #running = new Map<string, RunningContainer>();
  readonly #listeners: ExitListener[] = [];
  readonly #awaited: { line: string; resolve: () => void }[] = [];

  check(): Promise<string[]> {
    return Promise.resolve([]);
  }

  async start(spec: ContainerSpec): Promise<RunningContainer> {
    this.#see(`start ${spec.name}`);
    // A pid that cannot exist: above the kernel's limit.
    const running = {
      name: spec.name,
      pid: 2 ** 22 + 1,
      status: "running",
      startedAt: new Date(),
      idmap: spec.idmap,
    } as const;
    this.started.set(spec.name, spec);
    this.mounts.set(spec.name, new Map(spec.mounts.map((mount) => [mount.target, mount])));
    this.#running.set(spec.name, running);
    const status = this.endsAtOnce.get(spec.name);
    if (status) queueMicrotask(() => this.end(spec.name, status));
    return running;
  }

  async kill(name: string, signal: number): Promise<void> {
    this.#see(`kill ${name} ${signal}`);
  }

  async destroy(name: string): Promise<void> {
    const wasRunning = this.#running.has(name);
    if (wasRunning) this.#see(`destroy ${name}`);
    if (wasRunning) this.end(name, { signal: 9 });
  }

  async setLimits(name: string, limits: Limits): Promise<void> {
    this.limits.set(name, limits);
    this.#see(`limits ${name}`);
  }

  async freeze(name: string): Promise<void> {
    this.#see(`freeze ${name}`);
    this.#running.set(name, { ...this.#running.get(name)!, status: "frozen" });
  }

  async unfreeze(name: string): Promise<void> {
    this.#see(`unfreeze ${name}`);
    this.#running.set(name, { ...this.#running.get(name)!, status: "running" });
  }

  get(name: string): RunningContainer | undefined {
    return this.#running.get(name);
  }

  adopt(): Promise<RunningContainer[]> {
    return Promise.resolve([...this.#running.values()]);
  }

  onExit(listener: ExitListener): void {
    this.#listeners.push(listener);
  }

  exec(_name: string, _command: CommandSpec, _stdio: CommandStdio): Promise<LaunchedCommand> {
    return Promise.reject(new Error("FakeRuntime has no exec"));
  }

  async attach(name: string, mount: MountSpec): Promise<void> {
    this.#see(`attach ${name} ${mount.target}`);
    this.mounts.get(name)!.set(mount.target, mount);
  }

  async detach(name: string, { target }: MountPlace, options: { lazy?: boolean } = {}): Promise<void> {
    this.#see(`detach ${name} ${target}${options.lazy ? " lazy" : ""}`);
    this.mounts.get(name)!.delete(target);
  }

  isAttached(name: string, { source, target }: MountPlace): Promise<boolean> {
    return Promise.resolve(this.mounts.get(name)!.get(target)?.source === source);
  }

  async lookAtSource(_name: string, path: string): Promise<"directory" | "file" | "other" | undefined> {
    const info = await stat(path).catch(() => undefined);
    return info && (info.isDirectory() ? "directory" : info.isFile() ? "file" : "other");
  }

  lxcfsTargets(): Promise<readonly string[]> {
    return Promise.resolve([]);
  }

  readFile(): Promise<Uint8Array | undefined> {
    return Promise.resolve(undefined);
  }

  fileExists(): Promise<boolean> {
    return Promise.resolve(false);
  }

  attachConsole(): Promise<ConsoleTerminal> {
    return Promise.reject(new Error("FakeRuntime has no console"));
  }

  consoleContent(name: string): Promise<Uint8Array> {
    return Promise.resolve(new TextEncoder().encode(this.printed.get(name) ?? ""));
  }

  async clearConsole(name: string): Promise<void> {
    this.printed.delete(name);
  }

  usage(): Promise<{ processes: number; memoryBytes: bigint; memoryPeakBytes: bigint; cpuNs: bigint }> {
    return Promise.resolve({ processes: 2, memoryBytes: 4096n, memoryPeakBytes: 8192n, cpuNs: 77n });
  }

  strays(): Promise<string[]> {
    return Promise.resolve([]);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** Ends a container as if its init had exited. */
  end(name: string, status: { code?: number; signal?: number } = { code: 0 }): void {
    this.#running.delete(name);
    for (const listener of this.#listeners) listener(name, status);
  }

  /** Ends a container while no daemon runs: drops the listeners, as a killed daemon does. */
  endUnseen(name: string): void {
    this.#listeners.length = 0;
    this.#running.delete(name);
  }

  /** Resolves when `seen` has the line. */
  async waitFor(line: string): Promise<void> {
    if (this.seen.includes(line)) return;
    await new Promise<void>((resolve) => this.#awaited.push({ line, resolve }));
  }

  #see(line: string): void {
    this.seen.push(line);
    for (const awaited of this.#awaited) if (awaited.line === line) awaited.resolve();
    for (const [key, error] of this.failures) if (line.startsWith(key)) throw error;
  }
}
