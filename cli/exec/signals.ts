/** Signals that the client forwards to the command. */
import { readFileText } from "./descriptors.ts";
import type { ExecSession } from "./session.ts";

const numbers = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGUSR1: 10,
  SIGUSR2: 12,
  SIGTERM: 15,
  SIGCONT: 18,
  SIGTSTP: 20,
} as const;
type Name = keyof typeof numbers;
export const sigpipe = 13, sigkill = 9;

/** A second TERM within this time ends the client, whatever the command does, in milliseconds. */
const secondTermMs = 1000;
/** Two TERMs closer than this come from one sender: timeout(1) signals its child, then the child's process group. Milliseconds. */
const sameTermMs = 200;

/** Reads which signals the client's parent made it ignore: nohup does so with HUP, a shell without job control with INT and QUIT of
 * `command &`. They stay ignored, as in every program. Call it before a handler is set. @see signal(7) */
export async function ignoredSignals(): Promise<bigint> {
  const status = await readFileText("/proc/self/status");
  return BigInt(`0x${/^SigIgn:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
}

export interface SignalHandlers {
  /** Called for the second TERM within a second, if it comes `sameTermMs` or more after the first. */
  giveUp(): void;
  /** If present, called for HUP, which is then not forwarded. */
  hangUp?(): void;
}

/** Forwards signals from now on; those that come before the session has begun are kept for it. */
export class SignalForwarder {
  #session: ExecSession | undefined;
  #waiting: number[] = [];
  #lastTermMs = -Infinity;
  #handlers = new Map<NodeJS.Signals, () => void>();

  /** @param ignored As `ignoredSignals()`: bit n-1 for signal n. */
  constructor(ignored: bigint, handlers: SignalHandlers) {
    for (const name of Object.keys(numbers) as Name[]) {
      if (ignored >> BigInt(numbers[name] - 1) & 1n) continue;
      const handler = () => {
        if (name === "SIGTERM") {
          const sinceMs = performance.now() - this.#lastTermMs;
          if (sinceMs >= sameTermMs && sinceMs < secondTermMs) return handlers.giveUp();
          if (sinceMs >= secondTermMs) this.#lastTermMs = performance.now();
        }
        if (name === "SIGHUP" && handlers.hangUp) return handlers.hangUp();
        this.#send(numbers[name]);
        // Ctrl-Z stops the command and then the client, as the shell expects; `fg` continues both.
        if (name === "SIGTSTP") setTimeout(() => process.kill(process.pid, "SIGSTOP"), 20);
      };
      process.on(name, handler);
      this.#handlers.set(name, handler);
    }
  }

  #send(signal: number): void {
    if (this.#session === undefined) this.#waiting.push(signal);
    else this.#session.signal(signal);
  }

  /** Sets the session that signals are forwarded to. */
  attach(session: ExecSession): void {
    this.#session = session;
    for (const signal of this.#waiting.splice(0)) session.signal(signal);
  }

  /** Removes the handlers: the signals have their default effect again. */
  [Symbol.dispose](): void {
    for (const [name, handler] of this.#handlers) process.off(name, handler);
  }
}
