import { spawn } from "node:child_process";
import { slowness } from "./slowness.ts";

export interface Outcome {
  /** Exit code; 128+n if signal n killed the process. */
  readonly code: number;
  readonly out: string;
  readonly err: string;
  readonly bytes: Uint8Array;
  readonly ms: number;
}

export interface CommandOptions {
  readonly env?: Record<string, string>;
  /** Input on stdin; absent: /dev/null. */
  readonly input?: string | Uint8Array;
  readonly cwd?: string;
  /** Kills the process and rejects the promise after this time: a hanging test must fail by name, not by the suite's limit. */
  readonly timeoutMs?: number;
  /** Sends SIGINT to the process, as Ctrl-C does. */
  readonly interrupt?: AbortSignal;
}

const signals: Record<string, number> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGTERM: 15,
};

/** Runs a command to its end and returns any exit code.
 * @throws {Error} If it cannot be started or outlives its limit; the text includes its output so far. */
export function command(argv: readonly string[], options: CommandOptions = {}): Promise<Outcome> {
  const timeoutMs = (options.timeoutMs ?? 60_000) * slowness;
  const started = performance.now();
  return new Promise((resolve, reject) => {
    const child = spawn(argv[0]!, argv.slice(1), {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    options.interrupt?.addEventListener("abort", () => process.kill(child.pid!, "SIGINT"));
    const out: Uint8Array[] = [];
    const err: Uint8Array[] = [];
    child.stdout!.on("data", (chunk) => out.push(chunk));
    child.stderr!.on("data", (chunk) => err.push(chunk));
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill("SIGKILL");
    }, timeoutMs);
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      const bytes = Buffer.concat(out);
      const outcome = {
        code: code ?? 128 + (signals[signal ?? ""] ?? 0),
        out: bytes.length > 1 << 20 ? "" : bytes.toString(),
        err: Buffer.concat(err).toString(),
        bytes,
        ms: performance.now() - started,
      };
      if (!late) resolve(outcome);
      else reject(new Error(`"${argv.join(" ")}" did not end within ${timeoutMs} ms\n${outcome.out}${outcome.err}`));
    });
    if (child.stdin) {
      // EPIPE: a command need not read all of its input.
      child.stdin.on("error", () => {});
      child.stdin.end(options.input);
    }
  });
}

/** Runs a command that must succeed: a non-zero exit fails the test. @returns Its output without the last newline. */
export async function succeed(argv: readonly string[], options: CommandOptions = {}): Promise<string> {
  const outcome = await command(argv, options);
  if (outcome.code !== 0) {
    throw new Error(`"${argv.join(" ")}" ended with ${outcome.code}\n${outcome.out}${outcome.err}`);
  }
  return outcome.out.replace(/\n$/, "");
}
