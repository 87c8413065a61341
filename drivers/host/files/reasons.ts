import { messageOf } from "../../../api/errors.ts";
import { systemErrors } from "../../../api/system_errors.ts";

/** The kernel's errors for a path that exists, or may exist, and cannot be used. */
const reasons: Readonly<Record<string, string>> = {
  ...systemErrors,
  EINVAL: "its mount is unbindable, or not the host's",
  ENOTCONN: "transport endpoint is not connected: the process that serves its filesystem has ended",
  ESHUTDOWN: "its filesystem was shut down",
};

/** Errors of an unavailable filesystem: a FUSE without its process, an unreachable network server, a device that was pulled. */
const away: ReadonlySet<string> = new Set([
  ...["EHOSTDOWN", "EHOSTUNREACH", "ENODEV", "ENOTCONN", "ESHUTDOWN", "ESTALE", "ETIMEDOUT"],
]);

/** The words for a system call's failure; its code where there are none. @returns undefined for another kind of error. */
export function reasonOf(error: unknown): string | undefined {
  const { code } = error as { code?: unknown };
  return typeof code === "string" && /^E[A-Z0-9]+$/.test(code) ? reasons[code] ?? code : undefined;
}

/** Whether the call failed because its filesystem is unavailable. */
export function isAway(error: unknown): boolean {
  return away.has(String((error as { code?: unknown } | null)?.code));
}

/** The message of a failure, with words in place of the code at its end: `open "x": ENOENT`. */
export function messageInWords(error: unknown): string {
  return messageOf(error).replace(/\b(E[A-Z0-9]+)$/, (code) => systemErrors[code] ?? code);
}
