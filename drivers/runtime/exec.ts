import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { LidoError } from "../../api/errors.ts";
import { acceptUnix, listenUnix, receiveFd } from "../host/sockets/fd_passing.ts";
import { openLocalRoot } from "../host/files/container_root.ts";
import { holdExecution } from "../host/process/exec_gate.ts";
import { hostId } from "../host/mounts/idmap.ts";
import type { Poller } from "../host/poll/poll.ts";
import {
  again,
  closeFd,
  hasExecuted,
  makePipe,
  openPidfd,
  openReadEnd,
  ownPipe,
  ownPtyPeer,
  peek,
  readFd,
  setNonBlocking,
  setWindowSize,
  startTicks,
} from "../host/process/process.ts";
import { ociProcess } from "./bundle.ts";
import { childEnd, readable } from "./process/child.ts";
import { openExecutable, shell, whyNotExecuted } from "./not_executed.ts";
import type { Orphans } from "./process/orphans.ts";
import type { IdMap } from "../host/id_map.ts";
import { type CommandSpec, type CommandStdio, type LaunchedCommand, LaunchError } from "./runtime.ts";

export interface CrunCommand {
  /** Starts crun in the runtime's mount namespace. @param held Becomes crun's descriptor 3. @returns crun's pid. */
  spawn(argv: readonly string[], log: string, held: number, fds?: Pipes): number;
  /** Waits for crun and reaps it. @returns Its exit code. */
  ended(pid: number, timeoutMs: number): Promise<number | undefined>;
  /** Told when the command is started (the caller reaps it), reaped or abandoned. */
  readonly orphans: Pick<Orphans, "addCommand" | "removeCommand" | "abandon">;
  message(log: string): string;
  /** Text to append to an error message. */
  reachedLimits(): Promise<string>;
}

/** The container that a command is started in. */
export interface EnteredContainer {
  readonly name: string;
  /** Host pid of its init. */
  readonly init: number;
  /** Absent for a privileged one. */
  readonly idmap: IdMap | undefined;
  /** Directory of its files, `<root>/<name>`. */
  readonly directory: string;
  /** Prefix of the paths of its terminals' sockets, the same for all containers of a daemon. */
  readonly sockets: string;
  readonly apparmorLabel: string | undefined;
}

interface Pipes {
  readonly stdin: number;
  readonly stdout: number;
  readonly stderr: number;
}

const launchTimeoutMs = 30_000;
let sequence = 0;

/** Starts a command in a container by `crun exec --detach`: crun ends when the command has started, and the command becomes the daemon's child. So
 * its status comes from the kernel, and a command that exits with 255 is not mistaken for one that could not be started.
 * @throws {LaunchError} When the kernel does not execute it. A text file without "#!" is given to /bin/sh, as by execvp(3), and so by LXD. */
export async function enterContainer(
  crun: CrunCommand,
  poller: Poller,
  container: EnteredContainer,
  command: CommandSpec,
  stdio: CommandStdio,
): Promise<LaunchedCommand> {
  if (command.argv[0] === "") throw new LaunchError(127, "Command not found");
  if (stdio.kind === "pipes") own(stdio, command, container.idmap);
  const outcome = await launch(crun, poller, container, command, stdio);
  if (!("refusal" in outcome)) return outcome;
  const failure = atRoot(container.init, (root) => whyNotExecuted(root, command, outcome.refusal));
  if (failure.script === undefined) throw new LaunchError(failure.exitCode, failure.message);
  const byShell = { ...command, argv: [shell, failure.script, ...command.argv.slice(1)] };
  const second = await launch(crun, poller, container, byShell, stdio);
  if ("refusal" in second) throw new LaunchError(failure.exitCode, failure.message);
  return second;
}

/** @param init The container's init. */
function atRoot<T>(init: number, work: (root: number | undefined) => T): T {
  const root = openLocalRoot(init);
  try {
    return work(root);
  } finally {
    if (root !== undefined) closeFd(root);
  }
}

/** Makes the command's user the owner of its streams: otherwise it cannot open them by name (/dev/stdin). crun refuses ids outside the container's
 * map. */
function own(pipes: Pipes, { uid, gid }: CommandSpec, idmap: IdMap | undefined): void {
  const owner = idmap ? { uid: hostId(idmap.uid, uid), gid: hostId(idmap.gid, gid) } : { uid, gid };
  if (owner.uid === undefined || owner.gid === undefined) return;
  for (const fd of [pipes.stdin, pipes.stdout, pipes.stderr]) ownPipe(fd, owner.uid, owner.gid);
}

/** Sets the size, owner and group of a command's terminal. crun opens it as the container's root, sets no size, and leaves root its owner if the
 * container has no such user. The group is that of terminals. */
function prepareTerminal(
  master: number,
  size: { width: number; height: number },
  { uid }: CommandSpec,
  idmap: IdMap | undefined,
): void {
  setWindowSize(master, size);
  const owner = idmap ? hostId(idmap.uid, uid) : uid;
  if (uid !== 0 && owner !== undefined) ownPtyPeer(master, owner);
}

/** Delays the command's execution until its terminal is prepared: crun does not wait for that, and the command would see no size and a wrong owner.
 * @returns A descriptor; execution of the command's file waits until it is closed. Absent where that is not possible. */
function holdCommand(init: number, command: CommandSpec): number | undefined {
  const file = atRoot(init, (root) => openExecutable(root, command));
  if (file === undefined) return undefined;
  try {
    return holdExecution(file);
  } catch {
    return undefined; // the kernel or the filesystem does not support it
  } finally {
    closeFd(file);
  }
}

/** @returns The command, or crun's message if the kernel did not execute it: crun itself has succeeded by then, and its child writes to stderr. */
async function launch(
  crun: CrunCommand,
  poller: Poller,
  { name, init, idmap, directory, sockets, apparmorLabel }: EnteredContainer,
  command: CommandSpec,
  stdio: CommandStdio,
): Promise<LaunchedCommand | { readonly refusal: string }> {
  const base = join(directory, `exec-${++sequence}`);
  const files = { spec: `${base}.json`, pid: `${base}.pid`, log: `${base}.log` };
  const terminal = stdio.kind === "pty" ? { width: stdio.width || 80, height: stdio.height || 24 } : undefined;
  const process = ociProcess(command, {
    privileged: idmap === undefined,
    ...(terminal ? { terminal } : {}),
    apparmorLabel,
  });
  writeFileSync(files.spec, JSON.stringify(process), { mode: 0o600 });
  const console = terminal && new ConsoleSocket(
    poller,
    sockets,
    (master) => prepareTerminal(master, terminal, command, idmap),
  );
  const gate = terminal && holdCommand(init, command);
  // On failure, too: other processes may be about to execute the same file.
  if (gate !== undefined) console?.master.catch(() => {}).finally(() => closeFd(gate));
  // crun's child holds the other end until the kernel closes it: when the command is executed, or could not be.
  const held = makePipe();
  let started: number | undefined;
  try {
    const argv = ["exec", "--detach", "--pid-file", files.pid, "--process", files.spec];
    const tty = console ? ["--tty", "--console-socket", console.path] : [];
    let pid: number;
    try {
      pid = crun.spawn([...argv, ...tty, name], files.log, held.write, stdio.kind === "pipes" ? stdio : undefined);
    } finally {
      closeFd(held.write);
    }
    if (await crun.ended(pid, launchTimeoutMs) !== 0) {
      throw await launchError(crun.message(files.log), command, crun.reachedLimits);
    }
    const child = Number(readFileSync(files.pid, "utf8"));
    writeFileSync(files.pid, `${child} ${startTicks(child) ?? ""}`); // for `leftCommands`
    crun.orphans.addCommand(started = child);
    const reaped = () => {
      crun.orphans.removeCommand(child);
      rmSync(files.pid, { force: true });
    };
    await readable(poller, held.read, launchTimeoutMs, "the start of the command");
    const pty = await console?.master;
    if (hasExecuted(child)) {
      return { pid: child, pidfd: openPidfd(child), ...(pty === undefined ? {} : { pty }), reaped };
    }
    await childEnd(poller, child);
    reaped();
    return { refusal: lastWords(stdio.kind === "pipes" ? openReadEnd(stdio.stderr) : pty!) };
  } catch (error) {
    console?.master.then(closeFd, () => {});
    // The caller is told that the command failed: it must not be executed later, nor keep the container from ending.
    if (started !== undefined) crun.orphans.abandon(started);
    rmSync(files.pid, { force: true });
    throw error;
  } finally {
    closeFd(held.read);
    console?.close();
    for (const file of [files.spec, files.log]) rmSync(file, { force: true });
  }
}

/** @param fd Read without waiting, then closed. */
function lastWords(fd: number): string {
  try {
    const buffer = new Uint8Array(4096);
    setNonBlocking(fd);
    const count = readFd(fd, buffer);
    return count === again ? "" : new TextDecoder().decode(buffer.subarray(0, count)).trim();
  } finally {
    closeFd(fd);
  }
}

const pidFile = /^exec-\d+\.pid$/;

/** Finds the commands that an earlier daemon left in a container: no process reads their output or waits for them any more.
 * @param directory As given to `enterContainer`. @param members The container's processes. @returns Pids of the commands to kill. */
export function leftCommands(directory: string, members: readonly number[]): number[] {
  const inside = new Set(members);
  const left: number[] = [];
  for (const name of readdirSync(directory)) {
    if (!name.startsWith("exec-")) continue;
    const path = join(directory, name);
    if (pidFile.test(name)) {
      const [pid, ticks] = readFileSync(path, "utf8").split(" ");
      // The pid may belong to another process by now. Without ticks the daemon was killed just after crun had written it.
      if (inside.has(Number(pid)) && (ticks === undefined || startTicks(Number(pid)) === ticks)) left.push(Number(pid));
    }
    rmSync(path, { force: true });
  }
  return left;
}

/** @param daemon Unique name of the daemon. @returns `EnteredContainer.sockets`. Short, because socket paths are limited. */
export function socketsOf(daemon: string): string {
  return `/run/${daemon}-terminal-`;
}

/** Removes the sockets that a killed daemon left. */
export function removeSockets(sockets: string): void {
  for (const name of readdirSync(dirname(sockets)).filter((each) => each.startsWith(basename(sockets)))) {
    rmSync(join(dirname(sockets), name), { force: true });
  }
}

/** Where crun sends the master of the container's own pty. Only root may connect. */
class ConsoleSocket {
  readonly path: string;
  /** Rejects when the socket is closed before the master arrives. */
  readonly master: Promise<number>;
  readonly #poller: Poller;
  readonly #listening: number;
  readonly #closed = new AbortController();

  /** @param sockets Prefix of its path. @param onMaster Called as soon as the master arrives. */
  constructor(poller: Poller, sockets: string, onMaster: (master: number) => void) {
    this.#poller = poller;
    this.path = `${sockets}${++sequence}`;
    rmSync(this.path, { force: true });
    this.#listening = listenUnix(this.path);
    this.master = this.#receive(onMaster);
    this.master.catch(() => {}); // callers that await it get the error; when crun fails, none awaits it
  }

  async #receive(onMaster: (master: number) => void): Promise<number> {
    await this.#readable(this.#listening);
    const connection = acceptUnix(this.#listening);
    let master: number;
    try {
      if (!peek(connection).readable) await this.#readable(connection);
      master = receiveFd(connection);
    } finally {
      closeFd(connection);
    }
    try {
      onMaster(master);
      return master;
    } catch (error) {
      closeFd(master);
      throw error;
    }
  }

  #readable(fd: number): Promise<void> {
    return readable(this.#poller, fd, launchTimeoutMs, "the terminal of the command", this.#closed.signal);
  }

  close(): void {
    this.#closed.abort();
    closeFd(this.#listening);
    rmSync(this.path, { force: true });
  }
}

/** crun gives the reason only as text. @see crun 1.8, src/libcrun/linux.c and container.c */
async function launchError(
  message: string,
  command: CommandSpec,
  reachedLimits: () => Promise<string>,
): Promise<Error> {
  if (/^chdir /.test(message)) {
    return new LaunchError(126, `Cannot change to directory "${command.cwd}": ${reason(message)}`);
  }
  if (/executable file.*not found|No such file or directory/i.test(message)) {
    return new LaunchError(127, "Command not found");
  }
  if (/^open executable|permission denied|exec format error|is a directory|text file busy/i.test(message)) {
    return new LaunchError(126, "Command not executable");
  }
  if (/^cannot set(resuid|resgid|groups)/.test(message)) {
    const { uid, gid } = command;
    return new LidoError("bad_request", `Cannot run as user ${uid} and group ${gid}: the instance has no such ids`);
  }
  const reached = await reachedLimits();
  // An exhausted limit of the instance is not an internal error.
  const code = reached === "" ? "internal" : "bad_request";
  return new LidoError(code, `Failed to start the command: ${message}${reached}`);
}

function reason(message: string): string {
  return message.split(": ").at(-1)!.trim();
}
