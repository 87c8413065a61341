import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LidoError } from "../../api/errors.ts";
import { acceptUnix, listenUnix, receiveFd } from "../host/fd_passing.ts";
import type { Poller } from "../host/poll.ts";
import { closeFd, openPidfd, startTicks } from "../host/process.ts";
import { ociProcess } from "./bundle.ts";
import { readable } from "./child.ts";
import { type CommandSpec, type CommandStdio, type LaunchedCommand, LaunchError } from "./runtime.ts";

export interface CrunCommand {
  /** Starts crun inside the runtime's namespace. @returns Its pid. */
  spawn(argv: readonly string[], log: string, fds?: { stdin: number; stdout: number; stderr: number }): number;
  /** Waits for crun and reaps it. @returns Its exit code. */
  ended(pid: number, timeoutMs: number): Promise<number | undefined>;
  /** Told of the command, which is the caller's to reap, and that it was. */
  started(pid: number): void;
  reaped(pid: number): void;
  message(log: string): string;
}

const launchTimeoutMs = 30_000;
let sequence = 0;

/** Starts a command in a container by `crun exec --detach`: crun ends when the command is started, and the command is the daemon's child,
 * so that its status comes from the kernel and a command that exits with 255 is not taken for one that could not be started. */
export async function enterContainer(
  crun: CrunCommand,
  poller: Poller,
  directory: string,
  name: string,
  command: CommandSpec,
  stdio: CommandStdio,
  privileged: boolean,
): Promise<LaunchedCommand> {
  const base = join(directory, `exec-${++sequence}`);
  const files = { spec: `${base}.json`, pid: `${base}.pid`, log: `${base}.log` };
  const terminal = stdio.kind === "pty" ? { width: stdio.width || 80, height: stdio.height || 24 } : undefined;
  writeFileSync(files.spec, JSON.stringify(ociProcess(command, { privileged, ...(terminal ? { terminal } : {}) })), {
    mode: 0o600,
  });
  const console = terminal && new ConsoleSocket(poller);
  try {
    const argv = ["exec", "--detach", "--pid-file", files.pid, "--process", files.spec];
    const tty = console ? ["--tty", "--console-socket", console.path] : [];
    const pid = crun.spawn([...argv, ...tty, name], files.log, stdio.kind === "pipes" ? stdio : undefined);
    if (await crun.ended(pid, launchTimeoutMs) !== 0) throw launchError(crun.message(files.log), command);
    const child = Number(readFileSync(files.pid, "utf8"));
    writeFileSync(files.pid, `${child} ${startTicks(child) ?? ""}`); // for `leftCommands`
    crun.started(child);
    const reaped = () => {
      crun.reaped(child);
      rmSync(files.pid, { force: true });
    };
    return { pid: child, pidfd: openPidfd(child), ...(console ? { pty: await console.receive() } : {}), reaped };
  } catch (error) {
    rmSync(files.pid, { force: true });
    throw error;
  } finally {
    console?.close();
    for (const file of [files.spec, files.log]) rmSync(file, { force: true });
  }
}

const pidFile = /^exec-\d+\.pid$/;

/** The commands that an earlier daemon left running in a container: nobody reads them, hears them or waits for them any more.
 * @param directory As given to `enterContainer`. @param members The container's processes. @returns Those to be killed. */
export function leftCommands(directory: string, members: readonly number[]): number[] {
  const inside = new Set(members);
  const left: number[] = [];
  for (const name of readdirSync(directory)) {
    if (!name.startsWith("exec-")) continue;
    const path = join(directory, name);
    if (pidFile.test(name)) {
      const [pid, ticks] = readFileSync(path, "utf8").split(" ");
      // The number may be another process's by now. Without ticks the daemon was killed within a moment of crun's writing it.
      if (inside.has(Number(pid)) && (ticks === undefined || startTicks(Number(pid)) === ticks)) left.push(Number(pid));
    }
    rmSync(path, { force: true });
  }
  return left;
}

/** Where crun sends the master of the container's own pty. The connection waits in the socket's queue until crun is done. */
class ConsoleSocket {
  /** Short, for a socket's path is; in a directory that only root may enter. */
  readonly path = `/run/lido-console-${process.pid}-${++sequence}`;
  readonly #poller: Poller;
  readonly #listening: number;

  constructor(poller: Poller) {
    this.#poller = poller;
    rmSync(this.path, { force: true });
    this.#listening = listenUnix(this.path);
  }

  async receive(): Promise<number> {
    await readable(this.#poller, this.#listening, launchTimeoutMs, "the terminal of the command");
    const connection = acceptUnix(this.#listening);
    try {
      await readable(this.#poller, connection, launchTimeoutMs, "the terminal of the command");
      return receiveFd(connection);
    } finally {
      closeFd(connection);
    }
  }

  close(): void {
    closeFd(this.#listening);
    rmSync(this.path, { force: true });
  }
}

/** crun says why in words only. @see crun 1.8, src/libcrun/linux.c and container.c */
function launchError(message: string, command: CommandSpec): Error {
  if (/^chdir /.test(message)) {
    return new LaunchError(126, `Cannot change to directory "${command.cwd}": ${reason(message)}`);
  }
  if (/executable file.*not found|No such file or directory/i.test(message)) {
    return new LaunchError(127, "Command not found");
  }
  if (/^open executable|permission denied|exec format error|is a directory|text file busy/i.test(message)) {
    return new LaunchError(126, "Command not executable");
  }
  return new LidoError("internal", `Failed to start the command: ${message}`);
}

function reason(message: string): string {
  return message.split(": ").at(-1)!.trim();
}
