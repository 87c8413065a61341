import type { Server } from "../../../api/types.ts";
import { ConnectionError, UsageError } from "../../client/errors.ts";
import type { Io } from "../../verb.ts";

/** How often a daemon that is not there yet is tried, in milliseconds. A socket that somebody is about to make tells nobody. */
const retryMs = 20;

function deadlineOf(seconds: string): number {
  if (!/^\d{1,6}$/.test(seconds)) throw new UsageError(`Invalid timeout "${seconds}": must be a number of seconds`);
  return seconds === "0" ? Infinity : performance.now() + Number(seconds) * 1000;
}

/** @throws {ConnectionError} With the last reason, when the time is over. */
export async function waitReady({ client }: Io, seconds: string): Promise<void> {
  const deadlineMs = deadlineOf(seconds);
  while (true) {
    try {
      await client.request("GET", "/internal/ready");
      return;
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
      if (performance.now() > deadlineMs) {
        throw new ConnectionError(`The daemon is not ready after ${seconds} s: ${error.message}`, { cause: error });
      }
      await new Promise((resolve) => setTimeout(resolve, retryMs));
    }
  }
}

/** Returns when the daemon's process has ended: its directory and its locks are free then, another one can be started.
 * A remote daemon's end is that of its events stream. */
export async function shutDown({ client }: Io, seconds: string): Promise<void> {
  const deadlineMs = deadlineOf(seconds);
  const { environment } = await client.get<Server>("/1.0");
  using end = client.endpoint.kind === "unix" ? await endOf(environment.server_pid) : undefined;
  const { openWebSocket } = await import("../../client/websocket.ts");
  const gone = Promise.withResolvers<"gone">();
  const socket = await openWebSocket(client.endpoint, "/1.0/events?type=lifecycle", {
    close: () => gone.resolve("gone"),
  });
  try {
    await client.request("PUT", "/internal/shutdown");
    const late = Promise.withResolvers<"late">();
    const timer = deadlineMs === Infinity
      ? undefined
      : setTimeout(() => late.resolve("late"), deadlineMs - performance.now());
    const outcome = await Promise.race([gone.promise, late.promise]);
    clearTimeout(timer);
    if (outcome === "late" || end?.wait(deadlineMs - performance.now()) === false) {
      throw new Error(`The daemon has not ended after ${seconds} s`);
    }
  } finally {
    socket.terminate();
  }
}

/** @returns undefined when there is no such process here: the daemon's pid is that of another namespace. */
async function endOf(pid: number): Promise<Disposable & { wait(timeoutMs: number): boolean } | undefined> {
  const { ProcessEnd } = await import("../../../drivers/host/process_end.ts");
  try {
    return new ProcessEnd(pid);
  } catch (error) {
    if ((error as { code?: string }).code === "ESRCH") return undefined;
    throw error;
  }
}
