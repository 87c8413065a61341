/** Builds the daemon: every service in the order of their dependencies. */
import { chmodSync, existsSync, mkdirSync, readdirSync, realpathSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { LidoError, messageOf } from "../api/errors.ts";
import { version } from "../api/version.ts";
import { PidLock } from "../drivers/host/process/pid_lock.ts";
import { Poller } from "../drivers/host/poll/poll.ts";
import { markCommands, observeCommands } from "../drivers/host/tools/command.ts";
import type { Host } from "../drivers/host/host.ts";
import { notInstalled } from "../drivers/host/tools/host_tools.ts";
import { endLeftTools } from "../drivers/host/tools/left_tools.ts";
import { createHost } from "../drivers/host/real.ts";
import { CrunRuntime } from "../drivers/runtime/crun.ts";
import { serverCertificate } from "./credentials/certificate.ts";
import { Trust } from "./auth/trust.ts";
import { Check } from "./check/check.ts";
import type { Context } from "./context.ts";
import { pathsIn } from "./paths.ts";
import { Events } from "./events/events.ts";
import { ConsoleService } from "./exec/console.ts";
import { ExecService } from "./exec/exec.ts";
import { ExecSessions } from "./exec/sessions.ts";
import { parseAddress } from "./http/address.ts";
import { Guests } from "./guests/guests.ts";
import { ResourceView } from "./guests/resource_view.ts";
import { HttpServer } from "./http/server.ts";
import { Images } from "./images/images.ts";
import { hostServices } from "./instances/host_services.ts";
import { createLog } from "./log/log.ts";

export { logFaults } from "./log/faults.ts";
import { Instances } from "./instances/instances.ts";
import { Journal } from "./journal/journal.ts";
import { Operations } from "./operations/operations.ts";
import { Profiles } from "./profiles/profiles.ts";
import { makeApp, makeUpgrade } from "./routes/app.ts";
import { Recover } from "./recover/recover.ts";
import { Records } from "./records/records.ts";
import { Database } from "./state/database.ts";
import { Reserve } from "./state/reserve.ts";
import { ServerSettings } from "./state/settings.ts";
import { VolumeBackups } from "./backups/backups.ts";
import { VolumeCopies } from "./copies/copies.ts";
import { explainer } from "./volumes/explain.ts";
import { MountedVolumes } from "./pools/mounted.ts";
import { PoolWatch } from "./pools/watch.ts";
import { Pools } from "./pools/pools.ts";
import { storedConfig } from "./store/rows.ts";
import { SnapshotTimer } from "./schedules/snapshot_timer.ts";
import { SnapshotGroups } from "./snapshots/groups.ts";
import { VolumeSnapshots } from "./snapshots/snapshots.ts";
import { Volumes } from "./volumes/volumes.ts";

/** How long a clean end waits for operations that cannot be cancelled. The next daemon rolls back or completes those interrupted after it. */
const closeDeadlineMs = 30_000;
/** Longest path in sockaddr_un. @see unix(7) */
const socketPathMaxBytes = 107;

/** Parts that tests replace. */
export interface DaemonSeams {
  readonly host?: Host;
  readonly observe?: (point: string) => void;
}

export interface DaemonOptions {
  /** `$LIDO_DIR`, absolute. */
  readonly directory: string;
  /** Id of the group whose members may use the socket; root's when absent. */
  readonly group?: number;
  readonly logLevel?: string;
  /** Where LXCFS is mounted, if it runs. Default /var/lib/lxcfs. */
  readonly lxcfs?: string;
}

export interface Daemon {
  readonly context: Context;
  /** Resolves when the daemon has ended, by `close` or at a client's request. */
  readonly ended: Promise<void>;
  /** Ends the daemon cleanly; containers keep running. */
  close(): Promise<void>;
}

/** Starts a daemon; it serves when this resolves.
 * @throws {LidoError} When another daemon has the directory, or this process is not root. */
export async function startDaemon(options: DaemonOptions, seams: DaemonSeams = {}): Promise<Daemon> {
  try {
    return await start(options, seams);
  } catch (error) {
    // Users need the daemon to free space: on a full disk it starts in the reserve's space.
    const isFull = (error as NodeJS.ErrnoException).code === "ENOSPC";
    if (!isFull || !new Reserve(pathsIn(options.directory).database).release()) throw error;
    return await start(options, seams);
  }
}

async function start(options: DaemonOptions, seams: DaemonSeams): Promise<Daemon> {
  if (process.getuid?.() !== 0) throw new LidoError("forbidden", "The daemon must be run as root");
  const paths = pathsIn(options.directory);
  if (Buffer.byteLength(paths.socket) > socketPathMaxBytes) {
    throw new LidoError(
      "bad_request",
      `The path "${paths.socket}" is longer than a socket's may be: ${socketPathMaxBytes} bytes`,
    );
  }
  const events = new Events();
  const log = createLog(options.logLevel ?? "info", events);
  observeCommands(({ argv, ms, result }) => log.debug({ argv, ms, result }, "host command"));
  makeDirectory(paths.root, 0o711); // 0o711, as the socket is in it
  // Keeps other users away from containers' setuid files; the runtime opens the trees as root.
  for (const path of [paths.storagePools, paths.disks, paths.images, paths.pools, paths.backups, paths.logs]) {
    makeDirectory(path, 0o700);
  }
  // Earlier versions left some files readable by all. The files of storage pools have their containers' own modes.
  for (const path of [paths.disks, paths.images, paths.pools, paths.backups]) makeFilesPrivate(path);
  const lock = PidLock.take(paths.lock);
  if ("heldBy" in lock) {
    throw new LidoError("conflict", `A daemon with pid ${lock.heldBy} is already running in "${paths.root}"`);
  }

  await using undo = new AsyncDisposableStack();
  undo.defer(() => lock[Symbol.dispose]());
  const poller = new Poller();
  undo.defer(() => poller.close());
  // End an earlier daemon's tools before reading or repairing anything that they may still change.
  const directory = realpathSync(paths.root);
  const { found, left } = await endLeftTools(poller, directory);
  if (found.length > 0) log.warn({ tools: found, left }, "ended the tools that an earlier daemon was waiting for");
  markCommands(directory);
  // SQLite deletes the WAL when it closes the database.
  const wasClean = !existsSync(`${paths.database}-wal`);
  const database = new Database(paths.database);
  undo.defer(() => database.close());
  const runtime = new CrunRuntime({ root: paths.run, poller, log });
  undo.defer(() => runtime.close());
  for (const problem of await runtime.check()) log.warn(`containers cannot run on this host: ${problem}`);

  const host = seams.host ?? createHost();
  if (await host.which("bwrap") === undefined) {
    log.warn(`storage and images cannot be worked on: ${notInstalled("bwrap")}`);
  }
  const journal = new Journal(database, log, seams.observe);
  const explain = (error: unknown) => explainer(pools)(error);
  const operations = new Operations(events, { scope: () => records.scope(), explain, log });
  const settings = new ServerSettings(database);
  const trust = new Trust({ database, events, settings, log });
  const lookAt = (tenant: string, path: string) => runtime.lookAtSource(tenant, path);
  const opened = (name: string) => records.opened(name);
  const pools = new Pools({ database, journal, events, host, log, paths, opened, lookAt });
  // The only circular dependency: instances need volumes, and volumes ask which instances use them.
  const users = (pool: string, volume: string) => instances.usersOfVolume(pool, volume);
  const mounts = new MountedVolumes({
    driver: (pool) => pools.driver(pool),
    answered: (pool) => pools.sources.answered(pool),
    config: (pool, volume) => storedConfig(database, pool, volume),
    log,
  });
  const volumeOptions = { database, journal, events, operations, host, pools, mounts, users };
  const volumes = new Volumes(volumeOptions);
  const records: Records = new Records({ database, journal, pools, volumes, mounts, log, notes: paths.pools });
  const volumeSnapshots = new VolumeSnapshots(volumeOptions, volumes);
  const volumeCopies = new VolumeCopies(volumeOptions, volumes);
  const snapshotGroups = new SnapshotGroups(volumeOptions, volumes, volumeSnapshots, {
    hold: (names, work) => instances.hold(names, work),
    running: (names) => names.filter((name) => runtime.get(name)?.status === "running"),
    freeze: (name) => runtime.freeze(name),
    thaw: (name) => instances.thaw(name),
  });
  const images = new Images({ database, journal, events, operations, host, volumes, directory: paths.images });
  const profiles = new Profiles({
    database,
    events,
    journal,
    users: (name) => instances.profileUsers(name),
    changed: (before, options) => instances.profileChanged(before, options),
    log,
  });
  const resources = new ResourceView({
    path: options.lxcfs ?? "/var/lib/lxcfs",
    runtime,
    instances: () => instances.names(),
    log,
  });
  const guests = new Guests({
    resources,
    directory: paths.devlxd,
    mounts: host.mounts,
    runtime,
    guest: (name) => instances.guest(name),
    log,
  });
  undo.defer(() => guests.close());
  const instances: Instances = new Instances({
    database,
    journal,
    events,
    operations,
    runtime,
    pools,
    volumes,
    mounts,
    images,
    ...hostServices,
    guests,
    log,
    logs: paths.logs,
  });
  const consoles = new ConsoleService({
    runtime,
    poller,
    operations,
    events,
    target: (name) => instances.execTarget(name),
    logDirectory: (name) => instances.logDirectory(name),
  });
  const execSessions = new ExecSessions(database);
  const exec = new ExecService({
    runtime,
    poller,
    operations,
    events,
    sessions: execSessions,
    target: (name) => instances.execTarget(name),
    logs: paths.logs,
  });

  await pools.start();
  let isShutDown = false;
  undo.defer(() => pools.close((name) => isShutDown && !mounts.isInUse(name)));
  await instances.adopt();
  await mounts.start(pools.open(), (await host.mounts.list()).map(({ target }) => target));
  const { open, unsettled } = await journal.recover();
  if (open > 0) log.warn({ open, unsettled }, "settled what an earlier daemon was in the middle of");
  await images.start();
  await instances.start();
  records.start(wasClean);

  const snapshotTimer = new SnapshotTimer({
    database,
    events,
    log,
    snapshotVolume: (pool, volume) => volumeSnapshots.create(pool, volume, { name: "" }, true),
    deleteVolumeSnapshot: (pool, volume, snapshot) => volumeSnapshots.delete(pool, volume, snapshot),
    deleteInstanceSnapshot: (instance, snapshot) => instances.deleteSnapshot(instance, snapshot),
  });
  snapshotTimer.start();
  await resources.start();
  undo.defer(() => resources.close());
  const poolWatch = new PoolWatch({ pools, events, log });
  poolWatch.start();
  undo.defer(() => poolWatch.close());
  undo.defer(() => snapshotTimer.close());

  const ended = Promise.withResolvers<void>();
  let closing: Promise<void> | undefined;
  const close = () => closing ??= end();
  const context: Context = {
    paths,
    log,
    database,
    explain,
    journal,
    events,
    operations,
    settings,
    host,
    runtime,
    pools,
    volumes,
    mounts,
    poolWatch,
    resources,
    volumeSnapshots,
    snapshotGroups,
    volumeBackups: new VolumeBackups({ ...volumeOptions, directory: paths.backups }, volumes),
    volumeCopies,
    check: new Check({ database, journal, host, runtime, pools, volumes, mounts, paths, records }),
    images,
    profiles,
    instances,
    records,
    recover: new Recover({ database, host, pools, volumes, instances, paths }),
    trust,
    listen: () => listen(),
    https: () => server.https,
    consoles,
    exec,
    execSessions,
    shutdown: () => {
      isShutDown = true;
      void close();
    },
  };
  const app = makeApp(context);
  const server = new HttpServer({
    fetch: (request, env) => app.fetch(request, env),
    upgrade: makeUpgrade(context),
    isTrusted: (peer) => trust.allows(peer),
    log,
  });
  const listen = async () => {
    const address = settings.get("core.https_address");
    if (address === undefined) return await server.listenTls();
    await server.listenTls(parseAddress(address), await serverCertificate(paths.root));
  };
  const rest = undo.move();
  const end = async () => {
    log.info("ending");
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, closeDeadlineMs);
    try {
      await Promise.race([
        execSessions.close().then(() => operations.close()).then(() => instances.close()).then(() => records.idle()),
        late.promise,
      ]);
      await server.close();
      rmSync(paths.socket, { force: true });
      await rest.disposeAsync();
    } finally {
      clearTimeout(timer);
      ended.resolve();
    }
  };
  await server.listenUnix(paths.socket, options.group);
  // If the address cannot be used any more, still serve the socket, by which a user can change it.
  await listen().catch((error) => log.error({ error: messageOf(error) }, "the network is not served"));
  log.info({ version, socket: paths.socket, pid: process.pid }, "ready");
  return { context, ended: ended.promise, close };
}

/** Expects a tree that only root can reach, so that nothing in it changes meanwhile. */
function makeFilesPrivate(directory: string): void {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) makeFilesPrivate(path);
    else if (entry.isFile() && (statSync(path).mode & 0o077) !== 0) chmodSync(path, 0o600);
  }
}

function makeDirectory(path: string, mode: number): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, mode);
}
