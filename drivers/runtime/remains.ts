import { readFileSync, readlinkSync } from "node:fs";
import { allPids, endProcesses } from "../host/process/end_processes.ts";
import type { Poller } from "../host/poll/poll.ts";

/** What a container, or the daemon that was killed with it half-way, leaves: processes that are about to end, a cgroup that is in use until they
 * have, and crun, which goes on and makes what the next daemon has just removed. */

/** Of a `Cgroup`. */
export interface Removable {
  stragglers(): readonly number[] | Promise<readonly number[]>;
  thaw(): void | Promise<void>;
  remove(): void | Promise<void>;
}

const removeTimeoutMs = 5_000, crunTimeoutMs = 5_000;
/** crun takes a tenth of this. One that is killed while it executes a command leaves a command that nobody knows of. */
const crunGraceMs = 500;
/** The kernel tells of no process in a cgroup any more, and refuses to remove it for another moment; of v1 there is no event. */
const busyPauseMs = 2;

/** Ends what is in a cgroup and removes it.
 * @param options.timeoutMs Of both together. @throws {SystemCallError} EBUSY: something in it has not ended within the time. */
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

/** Kills what is in a cgroup, in whichever hierarchy, and waits for the end of it. What is frozen does not die before it is thawed. */
export async function endStragglers(
  poller: Poller,
  cgroup: Pick<Removable, "stragglers" | "thaw">,
  timeoutMs: number,
): Promise<void> {
  await endProcesses(poller, () => cgroup.stragglers(), { timeoutMs, killed: () => cgroup.thaw() });
}

/** Ends the crun processes of a daemon that was killed. @param root Where crun keeps its state: theirs, and nobody else's.
 * @returns The pids of those that have not ended. */
export function endCruns(poller: Poller, root: string): Promise<readonly number[]> {
  const beginning = `crun\0--root\0${root}\0`;
  const own = readlinkSync("/proc/self/ns/pid");
  const isOurs = (pid: number) => {
    try {
      // Not of what runs in a container: its command line may lie in a file that never answers.
      if (readlinkSync(`/proc/${pid}/ns/pid`) !== own) return false;
      return readFileSync(`/proc/${pid}/cmdline`, "latin1").startsWith(beginning);
    } catch {
      return false; // it has ended
    }
  };
  return endProcesses(poller, () => allPids().filter(isOurs), { timeoutMs: crunTimeoutMs, graceMs: crunGraceMs });
}
