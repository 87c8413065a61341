/** What can go wrong, as a code that the HTTP status is looked up from (one table, in `server/`). */
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

/** An error that is meant for the user: its message names the thing, the value and what is allowed, in LXD's words. */
export class LidoError extends Error {
  override name = "LidoError";
  readonly code: ErrorCode;
  /** LXD's text to the letter, where clients of LXD compare the whole of it: they get this one. */
  readonly lxdText: string | undefined;

  constructor(code: ErrorCode, message: string, options: ErrorOptions & { readonly lxdText?: string } = {}) {
    super(message, options);
    this.code = code;
    this.lxdText = options.lxdText;
  }
}

/** LXD's text, which scripts look for, and then what was looked for: `Image alias not found: "nosuch"`.
 * @param what As LXD calls it. @param where In words, as `in pool "fast"`. */
export function notFound(what: string, name: string, where = ""): LidoError {
  return new LidoError("not_found", `${what} not found: ${JSON.stringify(name)}${where && ` ${where}`}`);
}

/** The refusal of what an instance's state does not allow: `Instance is not running: "web"`. LXD's clients compare the whole of LXD's text.
 * @param text LXD's. */
export function wrongState(text: string, name: string): LidoError {
  return new LidoError("bad_request", `${text}: ${JSON.stringify(name)}`, { lxdText: text });
}

/** The text of anything that was thrown; never a stack trace, never `[object Object]`. */
export function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message || error.name;
  return typeof error === "string" ? error : `unexpected failure (${typeof error})`;
}
