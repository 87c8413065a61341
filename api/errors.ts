/** Codes of errors; the HTTP status is looked up from the code (one table, in `server/`). */
export type ErrorCode =
  | "bad_request"
  | "forbidden"
  | "not_found"
  | "conflict"
  | "precondition_failed"
  | "too_large"
  | "internal"
  | "not_implemented"
  | "unavailable";

/** An error for the user: its message names the thing, the value and what is allowed, in LXD's words. */
export class LidoError extends Error {
  override name = "LidoError";
  readonly code: ErrorCode;
  /** LXD's exact text, for the errors of which LXD's clients compare the whole text: they get this one. */
  readonly lxdText: string | undefined;

  constructor(code: ErrorCode, message: string, options: ErrorOptions & { readonly lxdText?: string } = {}) {
    super(message, options);
    this.code = code;
    this.lxdText = options.lxdText;
  }
}

/** LXD's text, which scripts look for, followed by the name: `Image alias not found: "nosuch"`.
 * @param what As LXD calls it. @param where In words, as `in pool "fast"`. */
export function notFound(what: string, name: string, where = ""): LidoError {
  return new LidoError("not_found", `${what} not found: ${JSON.stringify(name)}${where && ` ${where}`}`);
}

/** The error when an instance's state does not allow a request: `Instance is not running: "web"`. LXD's clients compare LXD's whole text.
 * @param text LXD's. */
export function wrongState(text: string, name: string): LidoError {
  return new LidoError("bad_request", `${text}: ${JSON.stringify(name)}`, { lxdText: text });
}

/** The text of any thrown value; never a stack trace, never `[object Object]`. */
export function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message || error.name;
  return typeof error === "string" ? error : `unexpected failure (${typeof error})`;
}
