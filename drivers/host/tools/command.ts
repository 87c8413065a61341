import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough, type Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { boxed, killSandbox, type Launch, workerOf } from "./confined.ts";
import {
  CommandError,
  type ConfinedTools,
  type Confinement,
  type PipedCommand,
  type PipeOptions,
  type RunOptions,
  type RunResult,
} from "../host.ts";
import { findTool, needTrusted, notInstalled, searchPath } from "./host_tools.ts";
import { markOf } from "./left_tools.ts";

/** C locale, because messages are parsed. */
const environment = { PATH: searchPath.join(":"), LC_ALL: "C", HOME: "/root" };
const defaultTimeoutMs = 600_000;
const progressEveryMs = 250;
const outputMaxBytes = 64 * 1024 * 1024;
/** A pipe's capacity. */
const heldBytes = 65_536;

/** A tool that has ended. */
export interface CommandOutcome {
  readonly argv: readonly string[];
  readonly ms: number;
  /** Its exit code, or how else it ended. */
  readonly result: string;
}

let observer: ((outcome: CommandOutcome) => void) | undefined;

/** Calls `told` for every tool that ends from now on, for the log. Data on a tool's stdin is not reported: it may be secret. */
export function observeCommands(told: (outcome: CommandOutcome) => void): void {
  observer = told;
}

let owner: string | undefined;

/** Marks every tool started from now on as belonging to the daemon of `directory`, so that the next daemon finds it: `endLeftTools`.
 * @param directory Absolute and real; undefined for no mark. */
export function markCommands(directory: string | undefined): void {
  owner = directory;
}

function environmentOf(argv: readonly string[]): Record<string, string> {
  return owner === undefined ? environment : { ...environment, ...markOf(owner, argv) };
}

/** @param started From `performance.now()`. */
export function observed(argv: readonly string[], started: number, result: string): void {
  observer?.({ argv, ms: Math.round(performance.now() - started), result });
}

export async function which(tool: string): Promise<string | undefined> {
  for (const directory of searchPath) {
    const path = join(directory, tool);
    try {
      await access(path, constants.X_OK);
      return path;
    } catch { /* the next directory */ }
  }
  return undefined;
}

/** @see Host.run */
// deno-lint-ignore require-await -- a usage error must reject, too
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  needTrusted(argv);
  return runTool(argv, options, undefined);
}

/** @see Host.pipe */
export function pipe(argv: readonly string[], options: PipeOptions = {}): PipedCommand {
  needTrusted(argv);
  return pipeTool(argv, options, undefined);
}

/** @see Host.confined */
export function confined(confinement: Confinement): ConfinedTools {
  return {
    run: (argv, options = {}) => runTool(argv, options, confinement),
    pipe: (argv, options = {}) => pipeTool(argv, options, confinement),
  };
}

/** Prepares a tool to run as it is, or in a confinement. @throws {CommandError} If it is not installed. */
function prepare(argv: readonly string[], confinement: Confinement | undefined): Launch {
  if (!confinement) return { argv, descriptors: [], started: () => {}, close: () => {} };
  const tool = findTool(argv[0]!);
  if (tool === undefined) throw new CommandError(argv, 127, "", notInstalled(argv[0]!));
  return boxed(tool, argv, confinement);
}

function start(
  launch: Launch,
  stdin: "ignore" | "pipe",
  cwd: string,
): ChildProcess {
  const [file, ...words] = launch.argv;
  try {
    const child = spawn(file!, words, {
      cwd,
      env: environmentOf(launch.argv),
      stdio: [stdin, "pipe", "pipe", ...launch.descriptors],
    });
    launch.started(child.pid);
    return child;
  } finally {
    launch.close();
  }
}

function kill(launch: Launch, child: ChildProcess): void {
  const hasEnded = () => child.exitCode !== null || child.signalCode !== null;
  if (child.pid === undefined || hasEnded()) return;
  if (launch.argv[0] === "bwrap") void killSandbox(child.pid, hasEnded);
  else child.kill("SIGKILL");
}

/** The sandbox's own error: the tool was not started. */
function sandboxFailure(launch: Launch, stderr: string): string | undefined {
  if (launch.argv[0] !== "bwrap" || !stderr.startsWith("bwrap: ")) return undefined;
  if (!stderr.startsWith("bwrap: Unknown option")) return "it cannot be confined";
  return '"bwrap" is too old (Debian package bubblewrap, 0.8.0-2+deb12u1 or later)';
}

function runTool(
  argv: readonly string[],
  options: RunOptions,
  confinement: Confinement | undefined,
): Promise<RunResult> {
  const { stdin, timeoutMs = defaultTimeoutMs, cwd = "/", signal, okCodes = [0] } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const launch = prepare(argv, confinement);
    const child = start(launch, stdin === undefined ? "ignore" : "pipe", cwd);
    const started = performance.now();
    let failure: Error | undefined;
    const end = (reason: Error) => {
      failure ??= reason;
      kill(launch, child);
    };
    const output = collect(child.stdout!, end);
    const errors = collect(child.stderr!, end);
    const timer = setTimeout(
      () => end(new CommandError(argv, undefined, "", `still running after ${timeoutMs} ms`)),
      timeoutMs,
    );
    const sampling = options.progress &&
      sample(working(launch, child), /^(?:wchar|write_bytes): (\d+)$/gm, options.progress);
    const abort = () => end(signal!.reason);
    signal?.addEventListener("abort", abort, { once: true });
    child.on("error", (error) => failure ??= launchFailure(launch, argv, error));
    child.on("close", (code, killedBy) => {
      clearTimeout(timer);
      clearInterval(sampling);
      signal?.removeEventListener("abort", abort);
      observed(argv, started, failure?.message ?? `${code ?? killedBy}`);
      const stderr = errors();
      if (failure) reject(failure);
      else if (code === null) reject(new CommandError(argv, undefined, stderr, `killed by ${killedBy}`));
      else if (!okCodes.includes(code) || sandboxFailure(launch, stderr)) {
        reject(new CommandError(argv, code, stderr, sandboxFailure(launch, stderr)));
      } else resolve({ code, stdout: output(), stderr });
    });
    // A tool that does not read its input is no failure; its exit code decides.
    child.stdin?.on("error", () => {});
    child.stdin?.end(stdin);
  });
}

/** A tool that copies does not report its progress, so the kernel's counters are used: bytes requested by finished calls, or bytes written so far if
 * that is more, as during a copy_file_range(2) of a whole file. @see proc_pid_io(5): wchar, write_bytes, rchar */
function sample(worker: () => number, counters: RegExp, progress: (bytes: bigint) => void): NodeJS.Timeout {
  const timer = setInterval(() => {
    try {
      const counts = readFileSync(`/proc/${worker()}/io`, "utf8").matchAll(counters);
      progress(BigInt(Math.max(...Array.from(counts, ([, bytes]) => Number(bytes)))));
    } catch {
      clearInterval(timer); // it has ended
    }
  }, progressEveryMs);
  return timer;
}

/** The process whose counters are read. */
function working(launch: Launch, { pid }: ChildProcess): () => number {
  return () => launch.argv[0] === "bwrap" ? workerOf(pid!) : pid!;
}

function pipeTool(
  argv: readonly string[],
  options: PipeOptions,
  confinement: Confinement | undefined,
): PipedCommand {
  const launch = prepare(argv, confinement);
  const child = start(launch, options.stdin ? "pipe" : "ignore", options.cwd ?? "/");
  const end = () => kill(launch, child);
  const abort = () => end();
  options.signal?.addEventListener("abort", abort, { once: true });
  if (options.signal?.aborted) end();
  const started = performance.now();
  const sampling = options.progress && sample(working(launch, child), /^rchar: (\d+)$/gm, options.progress);
  const errors = collect(child.stderr!, end);
  const ended = new Promise<void>((resolve, reject) => {
    let failure: Error | undefined;
    const { stallMs = defaultTimeoutMs } = options;
    const watching = stallMs > 0
      ? watchStall(working(launch, child), stallMs, (reason) => {
        failure ??= new CommandError(argv, undefined, "", reason);
        end();
      })
      : undefined;
    child.on("error", (error) => failure ??= launchFailure(launch, argv, error));
    child.on("close", (code, killedBy) => {
      clearInterval(watching);
      options.signal?.removeEventListener("abort", abort);
      clearInterval(sampling);
      observed(argv, started, failure?.message ?? `${code ?? killedBy}`);
      const stderr = errors(), refusal = sandboxFailure(launch, stderr);
      if (code !== null && (options.okCodes ?? [0]).includes(code) && !refusal) resolve();
      else if (options.signal?.aborted) reject(options.signal.reason);
      else if (failure) reject(failure);
      else {reject(
          new CommandError(argv, code ?? undefined, stderr, code === null ? `killed by ${killedBy}` : refusal),
        );}
    });
  });
  const fed = options.stdin ? feed(options.stdin, child, end) : Promise.resolve();
  // The tool's own failure says more than the broken pipe that it causes; but if the tool was ended because its source failed, report the source's.
  const done = ended.then(() => fed, async (failure) => {
    if (!options.signal?.aborted) {
      await fed.catch((cause) => {
        if (cause?.code !== "ERR_STREAM_PREMATURE_CLOSE") throw cause;
      });
    }
    throw failure;
  });
  done.catch(() => {});
  fed.catch(() => {});
  // The caller may read later, but node:child_process discards unread output in a child's own stream when the child exits
  // (flushStdio).
  const stdout = new PassThrough({ highWaterMark: heldBytes });
  const output = child.stdout!;
  output.pipe(stdout);
  output.on("error", (error) => void stdout.destroy(error));
  output.on("close", () => output.readableEnded || stdout.destroy(new Error(`the output of ${argv[0]} broke off`)));
  // When the reader stops, close the tool's pipe. Without the reason, unlike pipeline(): nothing would catch the error there.
  stdout.on("close", () => void output.destroy());
  stdout.on("error", () => {});
  return { stdout, done };
}

/** Checks regularly whether the tool has read or written since the last check. @see proc_pid_io(5): rchar, wchar */
function watchStall(worker: () => number, stallMs: number, stalled: (reason: string) => void): NodeJS.Timeout {
  const read = () => {
    try {
      return readFileSync(`/proc/${worker()}/io`, "utf8").split("\n", 2).join();
    } catch {
      return undefined; // it has ended
    }
  };
  let before = read();
  return setInterval(() => {
    const now = read();
    if (now !== undefined && now === before) stalled(`nothing has gone through it for ${stallMs / 1000} s`);
    before = now;
  }, stallMs);
}

async function feed(source: Readable, child: ChildProcess, end: () => void): Promise<void> {
  const stdin = child.stdin!;
  // A tool may stop reading early (tar does at its end mark), or not start at all; then its exit code decides. A source that fails ends the tool. The
  // error does not tell the two cases apart: a broken pipe gives EPIPE, ECANCELED or no code, depending on timing, and a source may fail with any
  // code. The order does: the stream that breaks first makes pipeline() destroy the other.
  let hasToolStopped = stdin.destroyed;
  const onBreak = () => void (hasToolStopped ||= !source.readableAborted);
  stdin.on("error", onBreak).on("close", onBreak);
  try {
    await pipeline(source, stdin);
  } catch (error) {
    source.destroy();
    if (hasToolStopped) return;
    end();
    throw error;
  }
}

function collect(stream: Readable, end: (reason: Error) => void): () => string {
  const chunks: Uint8Array[] = [];
  let size = 0;
  stream.on("data", (chunk: Uint8Array) => {
    size += chunk.length;
    if (size > outputMaxBytes) end(new Error(`a tool wrote more than ${outputMaxBytes} bytes of text`));
    else chunks.push(chunk);
  });
  return () => Buffer.concat(chunks).toString();
}

function launchFailure(launch: Launch, argv: readonly string[], error: Error): Error {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" ? new CommandError(argv, 127, "", notInstalled(launch.argv[0]!)) : error;
}
