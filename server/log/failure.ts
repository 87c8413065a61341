import { LidoError, messageOf } from "../../api/errors.ts";
import { LaunchError } from "../../drivers/runtime/runtime.ts";

export interface Log {
  debug(context: object, message: string): void;
  info(context: object, message: string): void;
  warn(context: object, message: string): void;
  error(context: object, message: string): void;
}

const causesMax = 5;

/** A failure with its causes; where it was thrown, when it is none that the daemon means to tell. */
export function describeFailure(error: unknown): { readonly error: string; readonly stack?: string } {
  const causes: string[] = [];
  let cause = error;
  for (let depth = 0; cause !== undefined && depth < causesMax; depth++) {
    const text = messageOf(cause);
    // Many an error has the text of its cause in its own.
    if (!causes.some((said) => said.includes(text))) causes.push(text);
    cause = (cause as { cause?: unknown })?.cause;
  }
  const stack = isUnexpected(error) ? (error as Error).stack : undefined;
  return { error: causes.join(": "), ...(stack === undefined ? {} : { stack }) };
}

/** Whether it is a fault of the daemon, or of its host, and not an answer. */
export function isUnexpected(error: unknown): boolean {
  if (error instanceof LaunchError) return false; // the command's own matter
  return !(error instanceof LidoError) || error.code === "internal";
}
