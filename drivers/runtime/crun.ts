import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { LidoError } from "../../api/errors.ts";
import { cloneMountIn, userNamespace } from "../host/idmap.ts";
import { check, cString, libc } from "../host/libc.ts";
import { dropMount, MountNamespace, moveMount } from "../host/namespace.ts";
import type { Poller } from "../host/poll.ts";
import {
  becomeSubreaper,
  closeFd,
  isChild,
  makePipe,
  openPidfd,
  sendSignal,
  spawnProcess,
  startTicks,
  waitPid,
} from "../host/process.ts";
import { ociConfig } from "./bundle.ts";
import { Cgroup, type CgroupLayout, cgroupLayout, cgroupsIn, removeEmptyParent } from "./cgroup.ts";
import { childEndWithin, readable } from "./child.ts";
import { type CrunCommand, enterContainer, leftCommands } from "./exec.ts";
import { checkHost } from "./host_check.ts";
import { HotPlug } from "./hot_plug.ts";
import { withSource } from "./mount_source.ts";
import { Orphans } from "./orphans.ts";
import type {
  CommandSpec,
  CommandStdio,
  ContainerSpec,
  IdMap,
  LaunchedCommand,
  MountPlace,
  MountSpec,
  RunningContainer,
  Runtime,
} from "./runtime.ts";

/** Where containers' mounts are in our namespace; the host's own directory there is not touched. */
const stage = "/mnt";
const crunPath = "/usr/bin/crun";
/** crun itself; a container's init goes on without limit. */
const crunTimeoutMs = 60_000;
const SIGKILL = 9;
const O_RDWR = 2, O_WRONLY = 1, O_CREAT = 0x40, O_APPEND = 0x400, O_CLOEXEC = 0x80000;

export interface RuntimeLog {
  info(context: object, message: string): void;
  warn(context: object, message: string): void;
}

interface Container {
  readonly name: string;
  readonly pid: number;
  readonly pidfd: number;
  readonly startedAt: Date;
  readonly idmap: IdMap | undefined;
  readonly ended: Promise<void>;
}

interface ClonedMount {
  readonly tree: number;
  readonly isDirectory: boolean;
}

/** What is kept beside a container for the next daemon: enough to know the process again and not to mistake another for it. */
interface Kept {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat, in ticks since boot: a pid may be used again, this with it may not. */
  readonly startTicks: string;
  readonly startedAt: string;
  readonly idmap?: IdMap;
}

/** Containers by crun: `run -d`, then nothing of crun remains. The daemon is the subreaper, so a container's init becomes its child and its
 * end is known by a pidfd. State is in `<root>/<name>/`; crun's own in `<root>/.crun`. */
export class CrunRuntime implements Runtime {
  readonly #root: string;
  readonly #poller: Poller;
  readonly #log: RuntimeLog;
  readonly #layout: CgroupLayout;
  readonly #namespace: MountNamespace;
  readonly #hotPlug = new HotPlug();
  /** Top of our cgroups; two daemons may have containers of one name. */
  readonly #cgroups: string;
  readonly #containers = new Map<string, Container>();
  readonly #starting = new Set<string>();
  readonly #listeners: ((name: string, status: { code?: number; signal?: number }) => void)[] = [];
  readonly #orphans: Orphans;
  #closed = false;

  /** @param options.root `$LIDO_DIR/run`, absolute. */
  constructor(options: { root: string; poller: Poller; log: RuntimeLog }) {
    this.#root = options.root;
    this.#poller = options.poller;
    this.#log = options.log;
    this.#orphans = new Orphans(options.poller);
    this.#layout = cgroupLayout();
    this.#cgroups = `/lido-${createHash("sha256").update(options.root).digest("hex").slice(0, 8)}`;
    makeDirectory(this.#root, 0o700);
    makeDirectory(join(this.#root, ".crun"), 0o700);
    becomeSubreaper();
    // The pools, below our parent, may be unmounted while we run; crun refuses a hybrid cgroup tree. A crun that can be written to, by a container
    // through /proc/self/exe, starts itself anew from a mount of its own, each time (CVE-2019-5736): half of its time.
    this.#namespace = new MountNamespace(
      [dirname(options.root), ...(this.#layout === "hybrid" ? ["/sys/fs/cgroup/unified"] : [])],
      stage,
      existsSync(crunPath) ? crunPath : undefined,
    );
  }

  check(): Promise<string[]> {
    return checkHost(crunPath, this.#layout);
  }

  async start(spec: ContainerSpec): Promise<RunningContainer> {
    if (this.#containers.has(spec.name)) throw new LidoError("bad_request", "The instance is already running");
    const directory = this.#directory(spec.name);
    this.#clean(spec.name); // what an earlier life may have left
    using starting = new DisposableStack();
    starting.defer(() => this.#starting.delete(spec.name));
    this.#starting.add(spec.name);
    makeDirectory(directory, 0o700);
    const log = join(directory, "crun.log"), pidFile = join(directory, "pid");
    let cloned: ClonedMount[] = [];
    // crun and its children hold the other end; the container's init lets go of it when it executes its own program. Only then can
    // crun 1.8 enter the container. @see https://github.com/containers/crun/issues/1264
    const held: { read: number; write: number } = makePipe();
    try {
      cloned = await this.#cloneAll(spec);
      const pid = this.#namespace.enter(() => {
        const mounts = this.#place(spec, cloned);
        const config = ociConfig({ ...spec, mounts }, {
          rootfs: join(stage, spec.name, "rootfs"),
          cgroupsPath: `${this.#cgroups}/${spec.name}`,
          unified: this.#layout === "unified",
        });
        closeAll(cloned.splice(0)); // held open they would keep the mounts busy
        writeFileSync(join(directory, "config.json"), JSON.stringify(config), { mode: 0o600 });
        return this.#spawn(["run", "--detach", "--bundle", directory, "--pid-file", pidFile, spec.name], {
          log,
          output: spec.consoleLog,
          extra: held.write,
        });
      });
      closeFd(held.write);
      held.write = -1;
      const code = await this.#crunEnd(pid, crunTimeoutMs);
      this.#orphans.reap();
      if (code !== 0) throw new LidoError("internal", `Failed to start "${spec.name}": ${crunMessage(log)}`);
      await readable(this.#poller, held.read, crunTimeoutMs, `the start of "${spec.name}"`);
      return this.#watch(spec.name, this.#keep(spec, Number(readFileSync(pidFile, "utf8"))));
    } catch (error) {
      closeAll(cloned);
      this.#clean(spec.name);
      throw error;
    } finally {
      closeFd(held.read);
      if (held.write >= 0) closeFd(held.write);
    }
  }

  kill(name: string, signal: number): Promise<void> {
    sendSignal(this.#container(name).pidfd, signal);
    return Promise.resolve();
  }

  async destroy(name: string): Promise<void> {
    const container = this.#containers.get(name);
    if (!container) return this.#clean(name);
    // A frozen process is not there to die.
    const cgroup = this.#cgroup(name);
    sendSignal(container.pidfd, SIGKILL);
    if (cgroup.isFrozen()) cgroup.freeze(false);
    await container.ended;
  }

  freeze(name: string): Promise<void> {
    this.#container(name);
    this.#cgroup(name).freeze(true);
    return Promise.resolve();
  }

  unfreeze(name: string): Promise<void> {
    this.#container(name);
    this.#cgroup(name).freeze(false);
    return Promise.resolve();
  }

  get(name: string): RunningContainer | undefined {
    const container = this.#containers.get(name);
    if (!container) return undefined;
    return {
      name,
      pid: container.pid,
      status: this.#cgroup(name).isFrozen() ? "frozen" : "running",
      startedAt: container.startedAt,
      idmap: container.idmap,
    };
  }

  adopt(): Promise<RunningContainer[]> {
    const adopted: RunningContainer[] = [];
    for (const name of readdirSync(this.#root)) {
      if (name.startsWith(".") || this.#containers.has(name)) continue;
      const kept = readKept(this.#directory(name));
      if (kept && startTicks(kept.pid) === kept.startTicks) {
        killEach(leftCommands(this.#directory(name), this.#cgroup(name).processes()));
        adopted.push(this.#watch(name, kept));
      } else {
        this.#clean(name);
      }
    }
    return Promise.resolve(adopted);
  }

  onExit(listener: (name: string, status: { code?: number; signal?: number }) => void): void {
    this.#listeners.push(listener);
  }

  exec(name: string, command: CommandSpec, stdio: CommandStdio): Promise<LaunchedCommand> {
    const { pid: init, idmap } = this.#container(name);
    const crun: CrunCommand = {
      spawn: (argv, log, extra, fds) => this.#namespace.enter(() => this.#spawn(argv, { log, extra, fds })),
      ended: async (pid, timeoutMs) => {
        const code = await this.#crunEnd(pid, timeoutMs);
        if (code !== 0) this.#orphans.reap();
        return code;
      },
      started: (pid) => this.#orphans.addCommand(pid),
      reaped: (pid) => this.#orphans.removeCommand(pid),
      message: crunMessage,
    };
    const container = { name, init, idmap, directory: this.#directory(name) };
    return enterContainer(crun, this.#poller, container, command, stdio);
  }

  attach(name: string, mount: MountSpec): Promise<void> {
    const container = this.#container(name);
    return this.#hotPlug.attach(container, mount, container.idmap);
  }

  detach(name: string, mount: MountPlace, options: { lazy?: boolean } = {}): Promise<void> {
    const processes = () => this.#cgroup(name).processes();
    return this.#hotPlug.detach(this.#container(name), mount, { ...options, processes });
  }

  isAttached(name: string, mount: MountPlace): Promise<boolean> {
    return this.#hotPlug.isAttached(this.#container(name), mount);
  }

  usage(name: string): Promise<{ processes: number; memoryBytes: bigint; memoryPeakBytes: bigint; cpuNs: bigint }> {
    this.#container(name);
    return Promise.resolve(this.#cgroup(name).usage());
  }

  strays(): Promise<string[]> {
    const known = (name: string) => this.#containers.has(name) || this.#starting.has(name);
    const directories = readdirSync(this.#root).filter((name) => !name.startsWith("."));
    const ofCrun = readdirSync(join(this.#root, ".crun"));
    const all = new Set([...directories, ...ofCrun, ...cgroupsIn(this.#cgroups, this.#layout)]);
    return Promise.resolve([...all].filter((name) => !known(name)).sort());
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#orphans.close();
    await this.#hotPlug.close();
    removeEmptyParent(this.#cgroups, this.#layout);
    this.#namespace.close();
  }

  #directory(name: string): string {
    return join(this.#root, name);
  }

  #cgroup(name: string): Cgroup {
    return new Cgroup(`${this.#cgroups}/${name}`, this.#layout);
  }

  #container(name: string): Container {
    const container = this.#containers.get(name);
    if (!container) throw new LidoError("bad_request", "Instance is not running");
    return container;
  }

  /** Detached copies of the root and of every mount, made where the pools are mounted: in the host's namespace, which ours need not follow. */
  async #cloneAll(spec: ContainerSpec): Promise<ClonedMount[]> {
    const namespace = spec.idmap && await userNamespace(spec.idmap);
    const cloned: ClonedMount[] = [];
    const clone = (mount: Partial<MountSpec>, source: string, isDirectory: boolean) => {
      const tree = cloneMountIn(source, {
        namespace: mount.shifted ? namespace : undefined,
        recursive: mount.recursive ?? true,
        ...(mount.options ? { options: mount.options } : {}),
        // crun makes it what is asked for.
        propagation: mount.propagation === undefined ? undefined : "as-source",
      });
      cloned.push({ tree, isDirectory });
    };
    try {
      clone({ shifted: spec.rootfsShifted }, spec.rootfs, true);
      for (const mount of spec.mounts) {
        withSource(mount, (source, isDirectory) => clone(mount, source, isDirectory));
      }
      return cloned;
    } catch (error) {
      closeAll(cloned);
      throw error;
    }
  }

  /** Puts them in our namespace, where crun will find them. @returns The mounts with their sources there. */
  #place(spec: ContainerSpec, [root, ...rest]: readonly ClonedMount[]): MountSpec[] {
    const directory = join(stage, spec.name);
    makeDirectory(directory, 0o711);
    makeDirectory(join(directory, "rootfs"), 0o711);
    moveMount(root!.tree, join(directory, "rootfs"));
    return spec.mounts.map((mount, index) => {
      const { tree, isDirectory } = rest[index]!;
      const source = join(directory, `device-${index}`);
      if (isDirectory) makeDirectory(source, 0o711);
      else writeFileSync(source, "");
      moveMount(tree, source);
      return { ...mount, source };
    });
  }

  async #crunEnd(pid: number, timeoutMs: number): Promise<number | undefined> {
    try {
      return (await childEndWithin(this.#poller, pid, timeoutMs)).code;
    } finally {
      this.#orphans.removeAwaited(pid);
    }
  }

  /** crun must be started inside the namespace. Its own messages go to `log`; its stdio becomes the container's. */
  #spawn(
    argv: readonly string[],
    options: {
      log: string;
      output?: string;
      extra?: number;
      fds?: { stdin: number; stdout: number; stderr: number };
    },
  ): number {
    const opened: number[] = [];
    const open = (path: string, flags: number) => {
      const fd = check(`open ${path}`, libc.open(cString(path), flags | O_CLOEXEC, 0o600));
      opened.push(fd);
      return fd;
    };
    try {
      const stdin = options.fds?.stdin ?? open("/dev/null", O_RDWR);
      const output = options.output === undefined ? stdin : open(options.output, O_WRONLY | O_CREAT | O_APPEND);
      const pid = spawnProcess({
        file: crunPath,
        argv: [
          "crun",
          "--root",
          join(this.#root, ".crun"),
          "--cgroup-manager",
          "cgroupfs",
          "--log",
          options.log,
          ...argv,
        ],
        environment: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
        stdio: { stdin, stdout: options.fds?.stdout ?? output, stderr: options.fds?.stderr ?? output },
        ...(options.extra === undefined ? {} : { extra: options.extra }),
      });
      this.#orphans.addAwaited(pid);
      return pid;
    } finally {
      for (const fd of opened) closeFd(fd);
    }
  }

  #keep(spec: ContainerSpec, pid: number): Kept {
    const ticks = startTicks(pid);
    if (ticks === undefined) throw new LidoError("internal", `Failed to start "${spec.name}": its init ended at once`);
    const kept: Kept = {
      pid,
      startTicks: ticks,
      startedAt: new Date().toISOString(),
      ...(spec.idmap ? { idmap: spec.idmap } : {}),
    };
    writeFileSync(join(this.#directory(spec.name), "state.json"), JSON.stringify(kept), { mode: 0o600 });
    return kept;
  }

  #watch(name: string, kept: Kept): RunningContainer {
    const pidfd = openPidfd(kept.pid);
    const watch = this.#poller.watch(pidfd);
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    watch.arm("in", () => {
      watch.close();
      closeFd(pidfd);
      // One that an earlier daemon started is init's child now, and its status is lost.
      const status = isChild(kept.pid) ? waitPid(kept.pid) ?? {} : {};
      this.#containers.delete(name);
      if (!this.#closed) this.#clean(name);
      resolve();
      for (const listener of this.#listeners) listener(name, status);
    });
    const container = { name, pid: kept.pid, pidfd, startedAt: new Date(kept.startedAt), idmap: kept.idmap, ended };
    this.#containers.set(name, container);
    return this.get(name)!;
  }

  /** Takes away all that a container that is no more leaves: mounts, cgroups, crun's state, our directory. */
  #clean(name: string): void {
    const directory = this.#directory(name);
    try {
      this.#namespace.enter(() => {
        const placed = join(stage, name);
        for (const entry of readdirSyncOr(placed)) dropMount(join(placed, entry));
        rmSync(placed, { recursive: true, force: true });
      });
      const cgroup = this.#cgroup(name);
      // With a pid namespace nothing outlives its init, but a start that failed half-way may have left a process.
      killEach(cgroup.processes());
      cgroup.remove();
    } catch (error) {
      this.#log.warn({ container: name, error: String(error) }, "could not take everything of a container away");
    }
    rmSync(join(this.#root, ".crun", name), { recursive: true, force: true });
    rmSync(directory, { recursive: true, force: true });
  }
}

/** With exactly `mode`: mkdir's own is cut by the umask. */
function makeDirectory(path: string, mode: number): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, mode);
}

function closeAll(mounts: readonly ClonedMount[]): void {
  for (const { tree } of mounts) closeFd(tree);
}

function killEach(pids: readonly number[]): void {
  for (const pid of pids) {
    const pidfd = openPidfd(pid);
    sendSignal(pidfd, SIGKILL);
    closeFd(pidfd);
  }
}

/** @returns What crun wrote to its log, the last line without its decoration. */
function crunMessage(log: string): string {
  try {
    const lines = readFileSync(log, "utf8").trim().split("\n").filter(Boolean);
    return (lines.at(-1) ?? "crun gave no reason").replace(/^time="[^"]*" level=\w+ msg=/, "").replace(
      /^\d{4}-\S+: /,
      "",
    );
  } catch {
    return "crun gave no reason";
  }
}

function readKept(directory: string): Kept | undefined {
  try {
    return JSON.parse(readFileSync(join(directory, "state.json"), "utf8"));
  } catch {
    return undefined;
  }
}

function readdirSyncOr(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
