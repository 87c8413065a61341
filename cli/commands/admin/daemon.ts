import type { Server } from "../../../api/types.ts";
import { ConnectionError, UsageError } from "../../client/errors.ts";
import type { MessageSocket } from "../../client/websocket.ts";
import type { Io } from "../../verb.ts";

/** Interval of tries while a daemon is not there yet, in milliseconds. No event tells that its socket was made. */
const retryMs = 20;

function deadlineOf(seconds: string): number {
  if (!/^\d{1,6}$/.test(seconds)) throw new UsageError(`Invalid timeout "${seconds}": must be a number of seconds`);
  return seconds === "0" ? Infinity : performance.now() + Number(seconds) * 1000;
}

/** A daemon that hangs accepts connections and never answers: each request to it needs the deadline. */
class Deadline implements Disposable {
  readonly #late = Promise.withResolvers<never>();
  readonly #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param atMs By `performance.now()`; may be infinite. @param error Thrown by a wait that passes the deadline. */
  constructor(atMs: number, error: () => Error) {
    this.#late.promise.catch(() => {});
    if (atMs === Infinity) return;
    this.#timer = setTimeout(() => this.#late.reject(error()), Math.max(0, atMs - performance.now()));
  }

  async wait<T>(work: Promise<T>): Promise<T> {
    return await Promise.race([work, this.#late.promise]);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}

/** @throws {ConnectionError} With the last reason, when the time is up. */
export async function waitReady({ client }: Io, seconds: string): Promise<void> {
  const deadlineMs = deadlineOf(seconds);
  const late = (reason: string, cause?: Error) =>
    new ConnectionError(`The daemon is not ready after ${seconds} s: ${reason}`, { cause });
  let last: ConnectionError | undefined;
  using deadline = new Deadline(deadlineMs, () => late(last?.message ?? "it does not answer", last));
  while (true) {
    const asked = client.request("GET", "/internal/ready").then(() => undefined, (error: unknown) => error);
    const error = await deadline.wait(asked);
    if (error === undefined) return;
    if (!(error instanceof ConnectionError)) throw error;
    last = error;
    if (performance.now() > deadlineMs) throw late(error.message, error);
    await new Promise((resolve) => setTimeout(resolve, retryMs));
  }
}

/** Returns when the daemon's process has ended: its directory and locks are then free, and another daemon can be started.
 * For a remote daemon it waits for the end of its events stream.
 * @throws {Error} When the time is up, wherever the daemon hangs. */
export async function shutDown({ client }: Io, seconds: string): Promise<void> {
  const deadlineMs = deadlineOf(seconds);
  const late = () => new Error(`The daemon has not ended after ${seconds} s`);
  using deadline = new Deadline(deadlineMs, late);
  const { environment } = await deadline.wait(client.get<Server>("/1.0"));
  using end = client.endpoint.kind === "unix" ? await endOf(environment.server_pid) : undefined;
  const { openWebSocket } = await import("../../client/websocket.ts");
  const gone = Promise.withResolvers<void>();
  let socket: MessageSocket | undefined;
  try {
    const listener = { close: () => gone.resolve() };
    const opening = (early: MessageSocket) => socket = early;
    await deadline.wait(openWebSocket(client.endpoint, "/1.0/events?type=lifecycle", listener, opening));
    await deadline.wait(client.request("PUT", "/internal/shutdown"));
    await deadline.wait(gone.promise);
    if (end?.wait(deadlineMs - performance.now()) === false) throw late();
  } finally {
    socket?.terminate();
  }
}

/** @returns undefined when there is no such process here: the daemon's pid is of another namespace. */
async function endOf(pid: number): Promise<Disposable & { wait(timeoutMs: number): boolean } | undefined> {
  const { ProcessEnd } = await import("../../../drivers/host/process/process_end.ts");
  try {
    return new ProcessEnd(pid);
  } catch (error) {
    if ((error as { code?: string }).code === "ESRCH") return undefined;
    throw error;
  }
}
