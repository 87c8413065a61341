import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough, type Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { CommandError, type PipedCommand, type PipeOptions, type RunOptions, type RunResult } from "./host.ts";

/** Host tools are looked up here and nowhere else, whatever PATH the daemon was started with. */
const searchPath = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/** C locale: messages are parsed. */
const environment = { PATH: searchPath.join(":"), LC_ALL: "C", HOME: "/root" };
const defaultTimeoutMs = 600_000;
const progressEveryMs = 250;
const outputMaxBytes = 64 * 1024 * 1024;
/** As much as a pipe holds. */
const heldBytes = 65_536;

/** A tool that has ended. */
export interface CommandOutcome {
  readonly argv: readonly string[];
  readonly ms: number;
  /** Its exit code, or how else it ended. */
  readonly result: string;
}

let observer: ((outcome: CommandOutcome) => void) | undefined;

/** Tells of every tool that ends from now on, whoever started it: for the log. What goes through a tool's stdin is not told, for secrets go there. */
export function observeCommands(told: (outcome: CommandOutcome) => void): void {
  observer = told;
}

/** @param started As `performance.now()` had it. */
export function observed(argv: readonly string[], started: number, result: string): void {
  observer?.({ argv, ms: Math.round(performance.now() - started), result });
}

/** Debian packages of the tools that may be missing. */
const packages: Record<string, string> = {
  btrfs: "btrfs-progs",
  "mkfs.btrfs": "btrfs-progs",
  crun: "crun",
  sqfs2tar: "squashfs-tools-ng",
  xz: "xz-utils",
  zstd: "zstd",
  bzip2: "bzip2",
  zfs: "zfsutils-linux",
  zpool: "zfsutils-linux",
  lvcreate: "lvm2",
  vgcreate: "lvm2",
  "mkfs.xfs": "xfsprogs",
  "mkfs.ext4": "e2fsprogs",
};

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
export function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { stdin, timeoutMs = defaultTimeoutMs, cwd = "/", signal, okCodes = [0] } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const child = spawn(argv[0]!, argv.slice(1), {
      cwd,
      env: environment,
      stdio: [stdin === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    const started = performance.now();
    let failure: Error | undefined;
    const end = (reason: Error) => {
      failure ??= reason;
      child.kill("SIGKILL");
    };
    const output = collect(child.stdout!, end);
    const errors = collect(child.stderr!, end);
    const timer = setTimeout(
      () => end(new CommandError(argv, undefined, "", `still running after ${timeoutMs} ms`)),
      timeoutMs,
    );
    const sampling = options.progress && sample(child.pid, /^(?:wchar|write_bytes): (\d+)$/gm, options.progress);
    const abort = () => end(signal!.reason);
    signal?.addEventListener("abort", abort, { once: true });
    child.on("error", (error) => failure ??= launchFailure(argv, error));
    child.on("close", (code, killedBy) => {
      clearTimeout(timer);
      clearInterval(sampling);
      signal?.removeEventListener("abort", abort);
      observed(argv, started, failure?.message ?? `${code ?? killedBy}`);
      const stderr = errors();
      if (failure) reject(failure);
      else if (code === null) reject(new CommandError(argv, undefined, stderr, `killed by ${killedBy}`));
      else if (!okCodes.includes(code)) reject(new CommandError(argv, code, stderr));
      else resolve({ code, stdout: output(), stderr });
    });
    // A tool that does not read its input is no failure; its exit code tells.
    child.stdin?.on("error", () => {});
    child.stdin?.end(stdin);
  });
}

/** A tool that copies does not say how far it is; the kernel counts for it: what it was asked to write, when a call is over, or what has been written so
 * far, where that is more, as in the middle of a copy_file_range(2) of a whole file. @see proc_pid_io(5): wchar, write_bytes, rchar */
function sample(pid: number | undefined, counters: RegExp, progress: (bytes: bigint) => void): NodeJS.Timeout {
  const timer = setInterval(() => {
    try {
      const counts = readFileSync(`/proc/${pid}/io`, "utf8").matchAll(counters);
      progress(BigInt(Math.max(...Array.from(counts, ([, bytes]) => Number(bytes)))));
    } catch {
      clearInterval(timer); // it has ended
    }
  }, progressEveryMs);
  return timer;
}

/** @see Host.pipe */
export function pipe(argv: readonly string[], options: PipeOptions = {}): PipedCommand {
  const child = spawn(argv[0]!, argv.slice(1), {
    cwd: options.cwd ?? "/",
    env: environment,
    stdio: [options.stdin ? "pipe" : "ignore", "pipe", "pipe"],
    signal: options.signal,
    killSignal: "SIGKILL",
  });
  const started = performance.now();
  const sampling = options.progress && sample(child.pid, /^rchar: (\d+)$/gm, options.progress);
  const errors = collect(child.stderr!, () => child.kill("SIGKILL"));
  const ended = new Promise<void>((resolve, reject) => {
    let failure: Error | undefined;
    const { stallMs = defaultTimeoutMs } = options;
    const watching = stallMs > 0
      ? watchStall(child.pid, stallMs, (reason) => {
        failure ??= new CommandError(argv, undefined, "", reason);
        child.kill("SIGKILL");
      })
      : undefined;
    child.on("error", (error) => failure ??= launchFailure(argv, error));
    child.on("close", (code, killedBy) => {
      clearInterval(watching);
      clearInterval(sampling);
      observed(argv, started, failure?.message ?? `${code ?? killedBy}`);
      if (code !== null && (options.okCodes ?? [0]).includes(code)) resolve();
      else if (options.signal?.aborted) reject(options.signal.reason);
      else if (failure) reject(failure);
      else {reject(
          new CommandError(argv, code ?? undefined, errors(), code === null ? `killed by ${killedBy}` : undefined),
        );}
    });
  });
  const fed = options.stdin ? feed(options.stdin, child) : Promise.resolve();
  // The tool's own failure says more than the broken pipe that follows from it; but one that was ended because its source failed says nothing.
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
  // Whoever reads may come to it later. What is in a child's own stream when it exits, and nobody reads, is thrown away (flushStdio of
  // node:child_process).
  const stdout = new PassThrough({ highWaterMark: heldBytes });
  pipeline(child.stdout!, stdout).catch(() => {}); // its end is told by `done`, its failure by the stream
  return { stdout, done };
}

/** Looks now and then whether the tool has read or written since it looked last. @see proc_pid_io(5): rchar, wchar */
function watchStall(pid: number | undefined, stallMs: number, stalled: (reason: string) => void): NodeJS.Timeout {
  const read = () => {
    try {
      return readFileSync(`/proc/${pid}/io`, "utf8").split("\n", 2).join();
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

async function feed(source: Readable, child: ReturnType<typeof spawn>): Promise<void> {
  try {
    await pipeline(source, child.stdin!);
  } catch (error) {
    // A tool may stop reading before the end (tar does at its end mark); then its exit code tells. A source that fails ends the tool.
    if ((error as NodeJS.ErrnoException).code === "EPIPE") return;
    child.kill("SIGKILL");
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

function launchFailure(argv: readonly string[], error: Error): Error {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== "ENOENT") return error;
  const brought = packages[argv[0]!];
  return new CommandError(
    argv,
    127,
    "",
    `"${argv[0]}" is not installed${brought ? ` (Debian package ${brought})` : ""}`,
  );
}
