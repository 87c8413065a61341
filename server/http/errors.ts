import { type ErrorCode, LidoError, messageOf } from "../../api/errors.ts";

/** The one table from error codes to HTTP statuses. */
const statuses: Readonly<Record<ErrorCode, number>> = {
  bad_request: 400,
  forbidden: 403,
  not_found: 404,
  conflict: 409,
  precondition_failed: 412,
  too_large: 413,
  internal: 500,
  not_implemented: 501,
  unavailable: 503,
};

/** Converts a failure to read a request's body: a client that disconnects in the middle is no fault of the daemon.
 * @param error The failure. */
export function bodyFailure(error: unknown): unknown {
  if (error instanceof LidoError) return error;
  return new LidoError("bad_request", "The connection ended before the request's body did", { cause: error });
}

/** @returns Status and text for the client; an error that is no LidoError is the daemon's fault. `detail` is lido's own text, if `text` is LXD's. */
export function describeError(error: unknown): { status: number; text: string; detail?: string } {
  if (!(error instanceof LidoError)) return { status: 500, text: messageOf(error) };
  const status = statuses[error.code];
  return error.lxdText === undefined
    ? { status, text: error.message }
    : { status, text: error.lxdText, detail: error.message };
}
