/** The daemon refused: `status` is the HTTP status, the message is the daemon's own. */
export class ApiError extends Error {
  override name = "ApiError";
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** The daemon could not be reached, or went away in the middle. */
export class ConnectionError extends Error {
  override name = "ConnectionError";
}

/** A mistake on the command line. */
export class UsageError extends Error {
  override name = "UsageError";
}

const reasons: Record<string, string> = {
  ENOENT: "no such file or directory",
  ECONNREFUSED: "connection refused",
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENOTDIR: "not a directory",
  EISDIR: "is a directory",
  ENOTSOCK: "not a socket",
  ECONNRESET: "connection reset by peer",
  EPIPE: "broken pipe",
  ETIMEDOUT: "connection timed out",
  EMFILE: "too many open files",
  ENOSPC: "no space left on device",
  EROFS: "read-only file system",
};

/** The plain words for a system error's code; an unknown one is given as it is. */
export function reasonOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code === "string") return reasons[code] ?? code;
  return error instanceof Error ? error.message : "unknown reason";
}
