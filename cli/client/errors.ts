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
  EBADF: "bad file descriptor",
  EIO: "input/output error",
  EFBIG: "file too large",
  EDQUOT: "disk quota exceeded",
  ELOOP: "too many levels of symbolic links",
  ENAMETOOLONG: "file name too long",
  EEXIST: "file exists",
  ENOTEMPTY: "directory not empty",
  ETXTBSY: "text file busy",
  ENXIO: "no such device or address",
  ENODEV: "no such device",
  EBUSY: "device or resource busy",
  EINVAL: "invalid argument",
  // Of a file: the process that serves its FUSE has ended.
  ENOTCONN: "transport endpoint is not connected",
  ESTALE: "stale file handle",
  ESHUTDOWN: "the filesystem was shut down",
  EHOSTDOWN: "host is down",
  EHOSTUNREACH: "no route to host",
  ENETUNREACH: "network is unreachable",
};

/** The plain words for a system error's code. @returns For another code the runtime's own words, or the code. */
export function reasonOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code === "string") {
    const own = error instanceof Error ? /^E[A-Z0-9]+: (.+?)(?:, \w|$)/.exec(error.message)?.[1] : undefined;
    return reasons[code] ?? own ?? code;
  }
  return error instanceof Error ? error.message : "unknown reason";
}
