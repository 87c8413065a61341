import { type ErrorCode, LidoError, messageOf } from "../../api/errors.ts";

/** The one table from what went wrong to an HTTP status. */
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

/** A client that goes away in the middle of its request: its own matter, and no fault of the daemon's.
 * @param error As reading the body failed. */
export function bodyFailure(error: unknown): unknown {
  if (error instanceof LidoError) return error;
  return new LidoError("bad_request", "The connection ended before the request's body did", { cause: error });
}

/** @returns Status and text for the client; what is no LidoError is our own failure. `detail` is the text of ours, where the other is LXD's. */
export function describeError(error: unknown): { status: number; text: string; detail?: string } {
  if (!(error instanceof LidoError)) return { status: 500, text: messageOf(error) };
  const status = statuses[error.code];
  return error.lxdText === undefined
    ? { status, text: error.message }
    : { status, text: error.lxdText, detail: error.message };
}
