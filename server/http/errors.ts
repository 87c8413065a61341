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

/** @returns Status and text for the client; what is no LidoError is our own failure. */
export function describeError(error: unknown): { status: number; text: string } {
  return { status: error instanceof LidoError ? statuses[error.code] : 500, text: messageOf(error) };
}
