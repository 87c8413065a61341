import { readFileSync, readlinkSync } from "node:fs";
import { allPids, endProcesses } from "../host/process/end_processes.ts";
import type { Poller } from "../host/poll/poll.ts";

/** Removal of what an ended container leaves, or a daemon that was killed while starting one: processes that are about to end, a cgroup that is busy
 * until they have, and crun, which continues and creates again what the next daemon has just removed. */

/** Implemented by `Cgroup`. */
export interface Removable {
  stragglers(): readonly number[] | Promise<readonly number[]>;
  thaw(): void | Promise<void>;
  remove(): void | Promise<void>;
}

const removeTimeoutMs = 5_000, crunTimeoutMs = 5_000;
/** crun takes a tenth of this. Killed while it executes a command, it would leave a command that nothing knows of. */
const crunGraceMs = 500;
/** For a moment after a cgroup's last process is gone the kernel still refuses to remove it; v1 has no event for it. */
const busyPauseMs = 2;

/** Kills the processes of a cgroup and removes it.
 * @param options.timeoutMs For both together. @throws {SystemCallError} EBUSY: a process in it has not ended in time. */
export async function removeCgroup(
  poller: Poller,
  cgroup: Removable,
  options: { timeoutMs?: number } = {},
): Promise<void> {
  const deadline = performance.now() + (options.timeoutMs ?? removeTimeoutMs);
  while (true) {
    await endStragglers(poller, cgroup, deadline - performance.now());
    try {
      return await cgroup.remove();
    } catch (error) {
      const isBusy = (error as NodeJS.ErrnoException).code === "EBUSY";
      if (!isBusy || performance.now() >= deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, busyPauseMs));
    }
  }
}

/** Kills the processes of a cgroup, in whichever hierarchy, and waits for their end. Frozen ones die only after thaw. */
export async function endStragglers(
  poller: Poller,
  cgroup: Pick<Removable, "stragglers" | "thaw">,
  timeoutMs: number,
): Promise<void> {
  await endProcesses(poller, () => cgroup.stragglers(), { timeoutMs, killed: () => cgroup.thaw() });
}

/** Ends the crun processes of a killed daemon. @param root crun's state directory, which only that daemon used.
 * @returns The pids of those that have not ended. */
export function endCruns(poller: Poller, root: string): Promise<readonly number[]> {
  const beginning = `crun\0--root\0${root}\0`;
  const own = readlinkSync("/proc/self/ns/pid");
  const isOurs = (pid: number) => {
    try {
      // Skip processes in containers: their command line may lie in a file that never answers.
      if (readlinkSync(`/proc/${pid}/ns/pid`) !== own) return false;
      return readFileSync(`/proc/${pid}/cmdline`, "latin1").startsWith(beginning);
    } catch {
      return false; // it has ended
    }
  };
  return endProcesses(poller, () => allPids().filter(isOurs), { timeoutMs: crunTimeoutMs, graceMs: crunGraceMs });
}
