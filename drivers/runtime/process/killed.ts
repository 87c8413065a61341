import { readFileSync } from "node:fs";
import { LidoError } from "../../../api/errors.ts";

/** A process that waits for a disk which does not answer cannot be killed until it does. */
export const killTimeoutMs = 30_000;
const namedMax = 3;

/** Waits for the end of a killed container. @param processes Pids of its remaining processes.
 * @throws {LidoError} unavailable, naming the processes that do not end and what they wait for; the container remains and may be killed again. */
export async function killed(
  name: string,
  { ended, processes, timeoutMs = killTimeoutMs }: {
    ended: Promise<void>;
    processes: () => readonly number[] | Promise<readonly number[]>;
    timeoutMs?: number;
  },
): Promise<void> {
  let left: readonly number[];
  for (;;) {
    const late = Promise.withResolvers<"late">();
    const timer = setTimeout(() => late.resolve("late"), timeoutMs);
    try {
      if (await Promise.race([ended, late.promise]) !== "late") return;
    } finally {
      clearTimeout(timer);
    }
    left = await processes();
    // Without processes, only its leftovers, such as thousands of cgroups, are being removed: wait on.
    if (left.length > 0) break;
  }
  const named = left.slice(0, namedMax).map(describe).join(", ");
  throw new LidoError(
    "unavailable",
    `Cannot stop "${name}": it was killed ${
      timeoutMs / 1000
    } s ago, and ${left.length} of its processes have not ended` +
      (named === "" ? "" : `: ${named}${left.length > namedMax ? ", …" : ""}`),
  );
}

/** @returns Such as "tar (pid 12, state D, in fuse_wait)". @see proc_pid_status(5), proc_pid_wchan(5) */
function describe(pid: number): string {
  const read = (file: string) => {
    try {
      return readFileSync(`/proc/${pid}/${file}`, "utf8");
    } catch {
      return "";
    }
  };
  const [, program = "?"] = /^Name:\t(.*)$/m.exec(read("status")) ?? [];
  const [, state = "?"] = /^State:\t(\w)/m.exec(read("status")) ?? [];
  const place = read("wchan");
  return `${program} (pid ${pid}, state ${state}${place === "" || place === "0" ? "" : `, in ${place}`})`;
}
