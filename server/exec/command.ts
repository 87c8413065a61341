/** A command and its streams, from its launch to its last byte. Knows neither HTTP nor containers: runs anything that can be started with three
 * descriptors or a terminal. */
import type { Poller } from "../../drivers/host/poll/poll.ts";
import {
  closeFd,
  duplicateFd,
  type ExitStatus,
  makePipe,
  sendSignal,
  setWindowSize,
  waitPid,
} from "../../drivers/host/process/process.ts";
import type { CommandStdio, LaunchedCommand } from "../../drivers/runtime/runtime.ts";
import { Input } from "./input.ts";
import { OutputPump, type Sink } from "./output.ts";

/** Size of the stdout pipe; a session buffers this much beside its queues. */
const pipeBytes = 256 * 1024;
const SIGKILL = 9;

export interface CommandOptions {
  /** Starts the command. The caller owns the descriptors and closes them afterwards. @throws {LaunchError} */
  readonly launch: (stdio: CommandStdio) => Promise<LaunchedCommand>;
  /** If present, the command gets a terminal of this size, and all its output goes to `stdout`. */
  readonly terminal?: { readonly width: number; readonly height: number };
  readonly stdout: Sink;
  readonly stderr: Sink;
  /** Whether output ends when the last process has closed it, not when the command has ended. */
  readonly waitOutput?: boolean;
}

export class Command {
  readonly input: Input;
  /** The command's exit code, 128+n when signal n ended it; resolves when all its output was taken.
   * @throws {Error} When other code has reaped it. */
  readonly ended: Promise<number>;
  readonly #launched: LaunchedCommand;
  readonly #outputs: readonly OutputPump[];
  #terminal: number | undefined;
  readonly #waitOutput: boolean;
  #isDead = false;

  /** Starts a command. @throws {LaunchError} Nothing is left behind then. */
  static async start(poller: Poller, options: CommandOptions): Promise<Command> {
    if (options.terminal) {
      const launched = await options.launch({ kind: "pty", ...options.terminal });
      const { pty } = launched;
      if (pty === undefined) throw new Error("The command was started without its terminal");
      return new Command(poller, options, launched, {
        input: duplicateFd(pty),
        outputs: [[duplicateFd(pty), options.stdout]],
        terminal: pty,
      });
    }
    const stdin = makePipe();
    const stdout = makePipe({ sizeBytes: pipeBytes }), stderr = makePipe();
    const theirs = { stdin: stdin.read, stdout: stdout.write, stderr: stderr.write };
    let launched: LaunchedCommand;
    try {
      launched = await options.launch({ kind: "pipes", ...theirs });
    } catch (error) {
      for (const fd of [stdin.write, stdout.read, stderr.read]) closeFd(fd);
      throw error;
    } finally {
      for (const fd of Object.values(theirs)) closeFd(fd);
    }
    return new Command(poller, options, launched, {
      input: stdin.write,
      outputs: [[stdout.read, options.stdout], [stderr.read, options.stderr]],
    });
  }

  private constructor(
    poller: Poller,
    options: CommandOptions,
    launched: LaunchedCommand,
    fds: { input: number; outputs: readonly (readonly [number, Sink])[]; terminal?: number },
  ) {
    this.#launched = launched;
    this.#terminal = fds.terminal;
    this.#waitOutput = options.waitOutput ?? false;
    this.input = new Input(poller, fds.input, fds.terminal !== undefined);
    this.#outputs = fds.outputs.map(([fd, sink]) => new OutputPump(poller, fd, sink));
    this.ended = this.#run(poller);
  }

  get pid(): number {
    return this.#launched.pid;
  }

  /** Does nothing if the command has ended. */
  signal(signal: number): void {
    if (!this.#isDead) sendSignal(this.#launched.pidfd, signal);
  }

  /** Does nothing without a terminal. @param size In characters, 1 to 65535. */
  resize(size: { width: number; height: number }): void {
    if (!this.#isDead && this.#terminal !== undefined) setWindowSize(this.#terminal, size);
  }

  /** Kills the command and discards its unread output. */
  abandon(): void {
    this.signal(SIGKILL);
    for (const output of this.#outputs) output.close();
  }

  /** Closes an output that has no reader any more: its writers get SIGPIPE, or SIGHUP on a terminal. */
  closeOutput(index: number): void {
    this.#outputs[index]?.close();
    if (this.#terminal !== undefined) this.#hangUp();
  }

  async #run(poller: Poller): Promise<number> {
    try {
      const status = await this.#death(poller);
      if (!this.#waitOutput) {
        this.input.close();
        for (const output of this.#outputs) output.drain();
      }
      await Promise.all(this.#outputs.map((output) => output.finished));
      return status.code ?? 128 + status.signal;
    } finally {
      for (const output of this.#outputs) output.close();
      this.#hangUp();
    }
  }

  #hangUp(): void {
    this.input.close();
    if (this.#terminal !== undefined) closeFd(this.#terminal);
    this.#terminal = undefined;
  }

  #death(poller: Poller): Promise<ExitStatus> {
    const { pid, pidfd, reaped } = this.#launched;
    const watch = poller.watch(pidfd);
    return new Promise((resolve, reject) => {
      watch.arm("in", () => {
        this.#isDead = true;
        watch.close();
        closeFd(pidfd);
        try {
          resolve(waitPid(pid)!);
        } catch (error) {
          reject(error);
        }
        reaped?.();
      });
    });
  }
}
