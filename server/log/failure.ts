import { LidoError, messageOf } from "../../api/errors.ts";
import { LaunchError } from "../../drivers/runtime/runtime.ts";

export interface Log {
  debug(context: object, message: string): void;
  info(context: object, message: string): void;
  warn(context: object, message: string): void;
  error(context: object, message: string): void;
}

const causesMax = 5;

/** A failure with its causes, and with its stack if it is unexpected. */
export function describeFailure(error: unknown): { readonly error: string; readonly stack?: string } {
  const causes: string[] = [];
  let cause = error;
  for (let depth = 0; cause !== undefined && depth < causesMax; depth++) {
    const text = messageOf(cause);
    // Many errors contain the text of their cause.
    if (!causes.some((said) => said.includes(text))) causes.push(text);
    cause = (cause as { cause?: unknown })?.cause;
  }
  const stack = isUnexpected(error) ? (error as Error).stack : undefined;
  return { error: causes.join(": "), ...(stack === undefined ? {} : { stack }) };
}

/** Whether an error is a fault of the daemon or its host, not an answer to the client. */
export function isUnexpected(error: unknown): boolean {
  if (error instanceof LaunchError) return false; // the command's failure, not the daemon's
  return !(error instanceof LidoError) || error.code === "internal";
}
