/** One HTTP request to the daemon. Bun's own `fetch` can use a unix socket and saves 25 ms of a process start over
 * node:http (measured), so it is used where it exists; everything else (other runtimes, https, bodies that stream)
 * uses node:http. */
import type { Endpoint } from "./endpoint.ts";
import { ConnectionError, outOfDescriptors, reasonOf } from "./errors.ts";

export interface Request {
  method: string;
  /** Path and query, as in `/1.0/instances?recursion=1`. */
  path: string;
  headers?: Record<string, string>;
  body?: string;
}

export interface Reply {
  status: number;
  /** Lower-case name. */
  header(name: string): string | undefined;
  text: string;
}

export type Transport = (request: Request) => Promise<Reply>;

/** The transport for an endpoint with the fastest start on this runtime. */
export function transportFor(endpoint: Endpoint): Transport {
  if (endpoint.kind === "unix" && process.versions.bun !== undefined) return fetchOverSocket(endpoint.socket);
  return async (request) => (await import("./http.ts")).requestText(endpoint, request);
}

function fetchOverSocket(socket: string): Transport {
  return async (request) => {
    try {
      // `unix` and `timeout` are Bun's own options: the socket, and no limit of five minutes on a long wait.
      const init = {
        method: request.method,
        headers: request.headers,
        body: request.body,
        unix: socket,
        timeout: false,
      };
      const response = await fetch(`http://lido${request.path}`, init as RequestInit);
      const text = await response.text();
      return { status: response.status, header: (name) => response.headers.get(name) ?? undefined, text };
    } catch (error) {
      throw await connectionError({ kind: "unix", socket }, error);
    }
  };
}

/** Why a request failed, in words for people. Connects once more to learn the system's own reason. */
export async function connectionError(endpoint: Endpoint, cause: unknown): Promise<ConnectionError> {
  if (endpoint.kind === "https") {
    return new ConnectionError(`Cannot connect to the lido daemon at "${endpoint.url}": ${reasonOf(cause)}`, { cause });
  }
  if (await isOutOfDescriptors()) {
    return new ConnectionError(`Cannot connect to the lido daemon at "${endpoint.socket}": ${outOfDescriptors}`, {
      cause,
    });
  }
  const { connect } = await import("node:net");
  const failure = await new Promise<unknown>((resolve) => {
    const socket = connect(endpoint.socket);
    socket.once("connect", () => resolve(undefined));
    socket.once("error", resolve);
  });
  const name = `the lido daemon at "${endpoint.socket}"`;
  if (failure === undefined) {
    return new ConnectionError(`Lost the connection to ${name}: ${reasonOf(cause)}`, { cause });
  }
  const advice = await adviceOn(endpoint.socket, (failure as { code?: string }).code);
  // The connection was lost after the request was sent: the daemon may have carried it out, in part or not at all.
  if (["ECONNRESET", "EPIPE"].includes(String((cause as { code?: unknown } | null)?.code))) {
    return new ConnectionError(`Lost the connection to ${name}: ${advice}`, { cause });
  }
  return new ConnectionError(`Cannot connect to ${name}: ${reasonOf(failure)}; ${advice}`, { cause: failure });
}

/** Descriptors that a command needs beyond those of its start: its websockets, and Bun's own. */
const descriptorsNeeded = 8;

/** Whether too few descriptors are free for a command: Bun reports "connection refused" when it has no descriptor for a socket. */
async function isOutOfDescriptors(): Promise<boolean> {
  const { closeSync, openSync } = await import("node:fs");
  const opened: number[] = [];
  try {
    while (opened.length < descriptorsNeeded) opened.push(openSync("/dev/null", "r"));
    return false;
  } catch (error) {
    return (error as { code?: string }).code === "EMFILE";
  } finally {
    opened.forEach((fd) => closeSync(fd));
  }
}

/** Advice about a socket that does not answer. */
async function adviceOn(socket: string, code: string | undefined): Promise<string> {
  const { existsSync, readFileSync, statSync } = await import("node:fs");
  const nameIn = (file: string, id: number) =>
    readFileSync(file, "utf8").split("\n").map((line) => line.split(":")).find((fields) => Number(fields[2]) === id)
      ?.[0];
  if (code === "EACCES" || code === "EPERM") {
    try {
      const { gid } = statSync(socket);
      const group = nameIn("/etc/group", gid);
      if (gid !== 0 && group !== undefined) {
        const user = nameIn("/etc/passwd", process.getuid!()) ?? "USER";
        return `its users are root and the group "${group}": "adduser ${user} ${group}", then log in again`;
      }
    } catch {
      // We cannot enter its directory either: only root is known to be allowed.
    }
    return 'only root may use it; "lido daemon --group NAME" lets a group in';
  }
  if (code === "ECONNREFUSED") {
    return 'no daemon runs (its socket is left from one that ended): start it with "lido daemon"';
  }
  if (code !== "ENOENT") return 'start it with "lido daemon"';
  const elsewhere = process.env.LIDO_SOCKET || process.env.LIDO_DIR
    ? ""
    : ", or set LIDO_DIR to the directory of one that runs";
  const { dirname } = await import("node:path");
  const directory = dirname(socket);
  const missing = existsSync(directory) ? "no daemon runs" : `there is no directory "${directory}"`;
  return `${missing}: start it with "lido daemon"${elsewhere}`;
}
