import { systemErrors } from "../../api/system_errors.ts";

/** The daemon refused: `status` is the HTTP status, the message is the daemon's own. */
export class ApiError extends Error {
  override name = "ApiError";
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Why no connection can be made when the cause is this process, not the daemon. */
export const outOfDescriptors = 'too many open files; "ulimit -n" tells and sets how many this process may have';

/** The daemon could not be reached, or the connection was lost during the request. */
export class ConnectionError extends Error {
  override name = "ConnectionError";

  /** The error for a caller that was connected before: the daemon was lost, unless this process is out of descriptors. */
  asLost(): ConnectionError {
    if (this.message.includes(outOfDescriptors)) return this;
    const message = this.message.replace(/^Cannot connect to /, "Lost the connection to ")
      .replace(/^Cannot open a websocket to the daemon(?=: it was closed)/, "Lost the connection to the lido daemon");
    return new ConnectionError(message, { cause: this.cause });
  }
}

/** A mistake on the command line. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** Exit code of a program whose output is no longer read: as if SIGPIPE had ended it. */
const brokenPipe = 141;

/** Stdout could not be written. */
export class OutputError extends Error {
  override name = "OutputError";
  /** The reader has closed it, as in `| head -1`: this is not reported as an error. */
  readonly isUnread: boolean;
  readonly exitCode: number;

  constructor(cause: unknown) {
    super(`Cannot write to stdout: ${reasonOf(cause)}`, { cause });
    this.isUnread = (cause as { code?: unknown } | null)?.code === "EPIPE";
    this.exitCode = this.isUnread ? brokenPipe : 1;
  }
}

/** The plain words for a system error's code. @returns For another code the runtime's own words, or the code. */
export function reasonOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code === "string") {
    const own = error instanceof Error ? /^E[A-Z0-9]+: (.+?)(?:, \w|$)/.exec(error.message)?.[1] : undefined;
    return systemErrors[code] ?? own ?? code;
  }
  return error instanceof Error ? error.message : "unknown reason";
}
