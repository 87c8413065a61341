import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LidoError, messageOf, wrongState } from "../../api/errors.ts";
import { killProcesses } from "../host/process/end_processes.ts";
import { ExitTracer } from "../host/process/exit_tracer.ts";
import { ExitWatch } from "../host/process/exit_watch.ts";
import { rootOwner } from "../host/mounts/idmap.ts";
import { abortWaitedFor, fuseConnections } from "../host/mounts/fuse.ts";
import { dropMount, mountControl, MountNamespace } from "../host/mounts/namespace.ts";
import type { Poller } from "../host/poll/poll.ts";
import {
  becomeSubreaper,
  closeFd,
  isChild,
  makePipe,
  openPidfd,
  sendSignal,
  startTicks,
  waitPid,
} from "../host/process/process.ts";
import { AppArmor } from "./security/apparmor.ts";
import { AttachedMounts } from "./mounts/attached.ts";
import { ociConfig } from "./bundle.ts";
import { besides, type Cgroup, Cgroups, reachedLimits } from "./cgroups/cgroup.ts";
import { endsWithin, readable } from "./process/child.ts";
import { crunMessage, crunPath, CrunTool } from "./crun_tool.ts";
import { Consoles } from "./console/consoles.ts";
import { ContainerFiles } from "./files/container_files.ts";
import { type CrunCommand, enterContainer, leftCommands, removeSockets, socketsOf } from "./exec.ts";
import { FileProcesses, type Stuck } from "./files/file_processes.ts";
import { checkHost } from "./cgroups/host_check.ts";
import { HotPlug } from "./mounts/hot_plug.ts";
import { readSaved, type SavedContainer, writeSaved } from "./saved_container.ts";
import { killed, killTimeoutMs } from "./process/killed.ts";
import { withoutDevices } from "./mounts/mounts.ts";
import { Orphans } from "./process/orphans.ts";
import { endCruns, endStragglers, removeCgroup } from "./remains.ts";
import { lookAtSource } from "./files/mount_source.ts";
import { replaceConsole } from "./replace_console.ts";
import { LaunchError } from "./runtime.ts";
import { devicesOf } from "./container_devices.ts";
import { cloneAll, closeAll, makeDirectory, makeStage, place, stageBeside, type StagedMount } from "./mounts/stage.ts";
import type { IdMap } from "../host/id_map.ts";
import type {
  CommandSpec,
  CommandStdio,
  ConsoleTerminal,
  ContainerEnd,
  ContainerSpec,
  DetachOptions,
  LaunchedCommand,
  Limits,
  MountPlace,
  MountSpec,
  RunningContainer,
  Runtime,
  RuntimeLog,
} from "./runtime.ts";

/** Limit for crun itself; a container's init runs on without limit. */
const crunTimeoutMs = 60_000;
/** How long a killed init may take to end the processes of its pid namespace. */
const endingMs = 1000;
const SIGKILL = 9;

interface Container {
  readonly name: string;
  readonly pid: number;
  readonly pidfd: number;
  readonly startedAt: Date;
  readonly idmap: IdMap | undefined;
  readonly mounts: AttachedMounts;
  readonly ended: Promise<void>;
}

/** Containers by crun: after `run -d` no process of crun remains. The daemon is the subreaper, so a container's init becomes its child, and a pidfd
 * reports its end. State is in `<root>/<name>/`; crun's own in `<root>/.crun`. */
export class CrunRuntime implements Runtime {
  readonly #root: string;
  readonly #poller: Poller;
  readonly #log: RuntimeLog;
  readonly #namespace: MountNamespace;
  readonly #files: FileProcesses;
  readonly #hotPlug: HotPlug;
  readonly #containerFiles: ContainerFiles;
  readonly #cgroups: Cgroups;
  readonly #crun: CrunTool;
  readonly #containers = new Map<string, Container>();
  readonly #starting = new Set<string>();
  readonly #listeners: ((name: string, end: ContainerEnd) => void)[] = [];
  readonly #orphans: Orphans;
  readonly #tracer = new ExitTracer();
  readonly #consoles: Consoles;
  readonly #apparmor: AppArmor | undefined;
  #besidesIsShown = false;
  #closed = false;

  /** @param options.root `$LIDO_DIR/run`, absolute. */
  constructor(options: { root: string; poller: Poller; log: RuntimeLog }) {
    this.#root = options.root;
    this.#poller = options.poller;
    this.#log = options.log;
    this.#orphans = new Orphans(options.poller);
    this.#files = new FileProcesses(options.poller, (stuck) => this.#freeStuck(stuck));
    this.#hotPlug = new HotPlug(this.#files);
    this.#containerFiles = new ContainerFiles(this.#files);
    // Two daemons may have containers of the same name.
    this.#cgroups = new Cgroups(`lido-${createHash("sha256").update(options.root).digest("hex").slice(0, 8)}`);
    makeDirectory(this.#root, 0o700);
    makeDirectory(join(this.#root, ".crun"), 0o700);
    this.#consoles = new Consoles({ directory: this.#root, poller: options.poller, log: options.log });
    this.#apparmor = AppArmor.find({
      directory: this.#root,
      daemon: this.#cgroups.name,
      warn: (reason) => options.log.warn({ reason }, "containers get no AppArmor profiles"),
    });
    becomeSubreaper();
    this.#namespace = new MountNamespace(stageBeside(realpathSync(options.root)), {
      // Terminals' sockets are in /run.
      needed: [realpathSync(options.root), "/run"],
      // crun refuses a hybrid tree, which it recognises by the v2 filesystem at this path. It does enter a v2 cgroup below.
      ...(this.#cgroups.layout === "hybrid" ? { emptied: besides } : {}),
      // A crun that a container could write to through /proc/self/exe restarts itself from a mount of its own each time (CVE-2019-5736), which takes
      // half of its time.
      ...(existsSync(crunPath) ? { readonly: crunPath } : {}),
    });
    this.#crun = new CrunTool({
      root: join(this.#root, ".crun"),
      namespace: this.#namespace,
      poller: this.#poller,
      orphans: this.#orphans,
    });
  }

  check(): Promise<string[]> {
    return checkHost(crunPath, this.#cgroups.layout);
  }

  async start(spec: ContainerSpec): Promise<RunningContainer> {
    if (this.#containers.has(spec.name)) throw wrongState("The instance is already running", spec.name);
    const directory = this.#directory(spec.name);
    using starting = new DisposableStack();
    starting.defer(() => this.#starting.delete(spec.name));
    this.#starting.add(spec.name);
    await this.#clean(spec.name); // left by an earlier run
    makeDirectory(directory, 0o700);
    const log = join(directory, "crun.log"), pidFile = join(directory, "pid");
    const cgroup = this.#cgroups.of(spec.name);
    const owner = rootOwner(spec.idmap);
    let cloned: StagedMount[] = [];
    // crun and its children hold the other end; the container's init closes it when it executes its own program. Only then can crun 1.8 enter
    // the container. @see https://github.com/containers/crun/issues/1264
    const held: { read: number; write: number } = makePipe();
    try {
      cloned = await cloneAll(this.#files, spec);
      cgroup.create(owner, devicesOf(spec));
      if (spec.limits) cgroup.limit(spec.limits);
      this.#showBesides();
      const apparmorLabel = await this.#apparmor?.load(spec);
      const console = await this.#consoles.open(spec.name, spec.idmap);
      starting.defer(() => closeFd(console.peer));
      // The bundle is a directory that the container's root may enter: its hooks start there.
      const bundle = join(this.#namespace.stage, spec.name);
      this.#namespace.enter(() => {
        const config = ociConfig({ ...spec, mounts: place(this.#namespace.stage, spec, cloned) }, {
          rootfs: join(bundle, "rootfs"),
          bootId: join(bundle, "boot_id"),
          cgroupsPath: cgroup.path,
          layout: this.#cgroups.layout,
          console: console.path,
          apparmorLabel,
        });
        writeFileSync(join(bundle, "config.json"), JSON.stringify(config), { mode: 0o600 });
      });
      const staged = cloned.splice(0);
      closeAll(staged); // open trees would keep the mounts busy
      const pid = this.#crun.start(["run", "--detach", "--bundle", bundle, "--pid-file", pidFile, spec.name], {
        log,
        nullDevice: join(bundle, "null"),
        stdio: { stdin: console.peer, stdout: console.peer, stderr: console.peer },
        extra: held.write,
      });
      closeFd(held.write);
      held.write = -1;
      const code = await this.#crun.ended(pid, crunTimeoutMs);
      const init = code === 0 ? Number(readFileSync(pidFile, "utf8")) : undefined;
      // While it is still crun, or if it failed to become the init, it must not be reaped as an orphan.
      if (init !== undefined) this.#orphans.addCommand(init);
      this.#orphans.reap();
      if (init === undefined) {
        const message = `${crunMessage(log)}${await reachedLimits(cgroup)}`;
        throw new LidoError("internal", `Failed to start "${spec.name}": ${message}`);
      }
      await readable(this.#poller, held.read, crunTimeoutMs, `the start of "${spec.name}"`);
      const running = this.#watch(spec.name, writeSaved(directory, spec, init));
      await this.#hotPlug.started(this.#container(spec.name), staged.slice(1));
      return running;
    } catch (error) {
      closeAll(cloned);
      await this.#consoles.end(spec.name, spec.consoleLog);
      await this.#clean(spec.name);
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
    if (!container) return await this.#clean(name);
    const cgroup = this.#cgroup(name);
    sendSignal(container.pidfd, SIGKILL);
    // The other processes die with it, except frozen ones, and a container can freeze its own.
    const others = endStragglers(this.#poller, cgroup, killTimeoutMs);
    await Promise.all([killed(name, { ended: container.ended, processes: () => cgroup.processes() }), others]);
  }

  setLimits(name: string, limits: Limits): Promise<void> {
    this.#container(name);
    return Promise.try(() => this.#cgroup(name).limit(limits));
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

  async adopt(): Promise<RunningContainer[]> {
    const adopted: RunningContainer[] = [];
    const consoles = await this.#consoles.adopt();
    const left = await endCruns(this.#poller, this.#crun.root);
    if (left.length > 0) this.#log.warn({ pids: left }, "crun processes of an earlier daemon do not end");
    removeSockets(socketsOf(this.#cgroups.name));
    for (const name of new Set([...consoles, ...await this.strays()])) {
      const kept = readSaved(this.#directory(name));
      if (kept && startTicks(kept.pid) === kept.startTicks) {
        const left = new Set(leftCommands(this.#directory(name), await this.#cgroup(name).processes()));
        await killProcesses(async () => (await this.#cgroup(name).processes()).filter((pid) => left.has(pid)));
        this.#showBesides();
        this.#namespace.enter(() => makeStage(this.#namespace.stage, name));
        adopted.push(this.#watch(name, kept));
        if (!this.#consoles.has(name)) {
          await replaceConsole(this.#container(name), {
            consoles: this.#consoles,
            hotPlug: this.#hotPlug,
            log: this.#log,
          });
        }
      } else {
        await this.#consoles.end(name, kept?.consoleLog);
        await this.#clean(name);
      }
    }
    this.#tracer.start(adopted.map(({ pid }) => pid).filter((pid) => !isChild(pid)));
    return adopted;
  }

  onExit(listener: (name: string, end: ContainerEnd) => void): void {
    this.#listeners.push(listener);
  }

  exec(name: string, command: CommandSpec, stdio: CommandStdio): Promise<LaunchedCommand> {
    const { pid: init, idmap } = this.#container(name);
    const nullDevice = join(this.#namespace.stage, name, "null");
    const crun: CrunCommand = {
      spawn: (argv, log, extra, stdio) =>
        this.#crun.start(argv, { log, extra, nullDevice, ...(stdio ? { stdio } : {}) }),
      ended: async (pid, timeoutMs) => {
        const code = await this.#crun.ended(pid, timeoutMs);
        if (code !== 0) this.#orphans.reap();
        return code;
      },
      orphans: this.#orphans,
      message: crunMessage,
      reachedLimits: () => reachedLimits(this.#cgroup(name)),
    };
    const sockets = socketsOf(this.#cgroups.name);
    const apparmorLabel = this.#apparmor?.labelOf(name, init);
    const container = { name, init, idmap, directory: this.#directory(name), sockets, apparmorLabel };
    return enterContainer(crun, this.#poller, container, command, stdio).catch(async (error) => {
      throw error instanceof LaunchError ? error : await this.#interruption(name, init, error) ?? error;
    });
  }

  /** The error to report when the container has been frozen or has ended meanwhile, so that the failed start is no internal error. */
  async #interruption(name: string, init: number, error: unknown): Promise<LidoError | undefined> {
    if (this.get(name)?.status === "frozen") return wrongState("Instance is frozen", name);
    // A killed init ends after all processes of its pid namespace, which may include the one that was being started.
    const isUnexplained = !(error instanceof LidoError) || error.code === "internal";
    const isEnding = startTicks(init) === undefined || isUnexplained && await endsWithin(this.#poller, init, endingMs);
    return isEnding ? wrongState("Instance is not running", name) : undefined;
  }

  attach(name: string, mount: MountSpec): Promise<void> {
    const container = this.#container(name);
    return this.#hotPlug.attach(container, { ...mount, options: withoutDevices(mount.options) }, container.idmap);
  }

  async detach(name: string, mount: MountPlace, options: DetachOptions = {}): Promise<void> {
    const container = this.#container(name);
    const processes = () => this.#cgroup(name).processes();
    await this.#hotPlug.detach(container, mount, { ...options, processes });
    if (options.removeTarget) await this.#containerFiles.removeDirectory(container, mount.target);
  }

  isAttached(name: string, mount: MountPlace): Promise<boolean> {
    return this.#hotPlug.isAttached(this.#container(name), mount);
  }

  lookAtSource(tenant: string, path: string): Promise<"directory" | "file" | "other" | undefined> {
    return lookAtSource(this.#files, tenant, path);
  }

  async lxcfsTargets(path: string, timeoutMs: number): Promise<readonly string[]> {
    return (await this.#files.ask("/lxcfs", { do: "lxcfs", path }, { timeoutMs })).answer.targets ?? [];
  }

  readFile(name: string, path: string): Promise<Uint8Array | undefined> {
    return this.#containerFiles.read(this.#container(name), path);
  }

  fileExists(name: string, path: string): Promise<boolean> {
    return this.#containerFiles.exists(this.#container(name), path);
  }

  async attachConsole(name: string): Promise<ConsoleTerminal> {
    this.#container(name);
    return await this.#consoles.attach(name);
  }

  async consoleContent(name: string): Promise<Uint8Array> {
    this.#container(name);
    return await this.#consoles.content(name);
  }

  async clearConsole(name: string): Promise<void> {
    this.#container(name);
    await this.#consoles.clear(name);
  }

  usage(name: string): Promise<{ processes: number; memoryBytes: bigint; memoryPeakBytes: bigint; cpuNs: bigint }> {
    this.#container(name);
    return this.#cgroup(name).usage();
  }

  strays(): Promise<string[]> {
    const known = (name: string) => this.#containers.has(name) || this.#starting.has(name);
    const directories = readdirSync(this.#root).filter((name) => !name.startsWith("."));
    const ofCrun = readdirSync(join(this.#root, ".crun"));
    const profiles = this.#apparmor?.containers() ?? [];
    const all = new Set([...directories, ...ofCrun, ...this.#cgroups.names(), ...profiles]);
    return Promise.resolve([...all].filter((name) => !known(name)).sort());
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#orphans.close();
    this.#tracer.close();
    await this.#consoles.close();
    this.#files.close();
    this.#cgroups.removeIfEmpty();
    this.#namespace.close();
  }

  /** Done once, at the first container: before that our cgroup in a hybrid host's v2 hierarchy does not exist. */
  #showBesides(): void {
    if (this.#cgroups.layout !== "hybrid" || this.#besidesIsShown) return;
    const directory = join(besides, this.#cgroups.name);
    mkdirSync(directory, { recursive: true, mode: 0o755 });
    this.#namespace.graft(directory);
    this.#besidesIsShown = true;
  }

  #directory(name: string): string {
    return join(this.#root, name);
  }

  #cgroup(name: string): Cgroup {
    return this.#cgroups.of(name);
  }

  #container(name: string): Container {
    const container = this.#containers.get(name);
    if (!container) throw wrongState("Instance is not running", name);
    return container;
  }

  #watch(name: string, kept: SavedContainer): RunningContainer {
    const pidfd = openPidfd(kept.pid);
    const watch = this.#poller.watch(pidfd);
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const exit = isChild(kept.pid) ? undefined : this.#watchExit(name, kept.pid);
    const hasEnded = async () => {
      watch.close();
      const seen = exit?.status();
      exit?.close();
      await this.#consoles.end(name, kept.consoleLog);
      const traced = await this.#tracer.ended(kept.pid);
      const limitsReached = await this.#cgroup(name).limitsReached();
      // Another container of this name can start only after the clean-up.
      if (!this.#closed) await this.#clean(name);
      // Reap the process only now: a caller that finds it gone gets the exit status at once.
      const status = (isChild(kept.pid) ? waitPid(kept.pid) : traced ?? seen) ?? {};
      this.#orphans.removeCommand(kept.pid);
      this.#containers.delete(name);
      closeFd(pidfd);
      resolve();
      for (const listener of this.#listeners) {
        listener(name, { ...status, ...(limitsReached.length > 0 ? { limitsReached } : {}) });
      }
    };
    watch.arm("in", () => void hasEnded());
    const { pid, idmap, startedAt } = kept, mounts = new AttachedMounts(this.#directory(name));
    this.#containers.set(name, { name, pid, pidfd, startedAt: new Date(startedAt), idmap, mounts, ended });
    return this.get(name)!;
  }

  /** For a container that an earlier daemon started: its parent is now the host's init, which gets its exit status. */
  #watchExit(name: string, pid: number): ExitWatch | undefined {
    try {
      return ExitWatch.open(pid);
    } catch (error) {
      this.#log.warn(
        { container: name, error: messageOf(error) },
        "how it ends will not be known",
      );
      return undefined;
    }
  }

  /** A file process hangs in a FUSE filesystem that a container has mounted, and keeps the container's mounts until it ends: abort the filesystem's
   * connection, unless the host has mounted it, too. */
  #freeStuck({ tenant, task, pid }: Stuck): void {
    if (this.#closed || !("pid" in task)) return;
    const ofHost = fuseConnections("self");
    const theirs = new Set([...fuseConnections(pid), ...fuseConnections(task.pid)]);
    const ended = this.#namespace.enter(() => {
      const control = mountControl(join(this.#namespace.stage, ".fuse"));
      return abortWaitedFor(control, [...theirs].filter((connection) => !ofHost.has(connection)));
    });
    this.#log.warn({ container: tenant, ended }, "a filesystem of a container does not answer: ended it");
  }

  /** Removes everything that an ended container leaves: mounts, processes, cgroups, crun's state, our directory. */
  async #clean(name: string): Promise<void> {
    try {
      this.#namespace.enter(() => {
        const placed = join(this.#namespace.stage, name);
        for (const entry of readdirSyncOr(placed)) dropMount(join(placed, entry));
        rmSync(placed, { recursive: true, force: true });
      });
      await removeCgroup(this.#poller, this.#cgroup(name));
      this.#apparmor?.unload(name);
    } catch (error) {
      this.#log.warn({ container: name, error: messageOf(error) }, "could not remove all that a container left");
    }
    rmSync(join(this.#root, ".crun", name), { recursive: true, force: true });
    rmSync(this.#directory(name), { recursive: true, force: true });
  }
}

function readdirSyncOr(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
