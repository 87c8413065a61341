import { readdirSync } from "node:fs";
import { SystemCallError } from "../ffi/libc.ts";
import type { Poller } from "../poll/poll.ts";
import { closeFd, openPidfd, sendSignal } from "./process.ts";

const SIGKILL = 9;
/** Maximum of processes per round: each takes a descriptor. */
const roundMax = 256;
/** How long to wait for the end of a round before listing the processes again: some may have started others meanwhile. */
const roundMs = 500;

/** @returns The current pids of the processes to end. */
type ListProcesses = () => readonly number[] | Promise<readonly number[]>;

/** Ends processes, and those that they start meanwhile.
 * @param list Called repeatedly; a pid is valid only while it is listed, because it may be reused at once.
 * @param options.timeoutMs Limit on the wait for their end. @param options.graceMs Part of it in which they are not killed, but may end by
 * themselves.
 * @param options.killed Called each time after all processes of a round were killed.
 * @returns Pids of those that have not ended: they wait for a device that does not answer. */
export async function endProcesses(
  poller: Poller,
  list: ListProcesses,
  options: { timeoutMs: number; graceMs?: number; killed?: () => void | Promise<void> },
): Promise<readonly number[]> {
  const started = performance.now();
  const leftMs = (limitMs: number) => started + limitMs - performance.now();
  for (let pids = await list(); pids.length > 0; pids = await list()) {
    const untilEndMs = leftMs(options.timeoutMs), graceMs = leftMs(options.graceMs ?? 0);
    if (untilEndMs <= 0) return pids;
    const pidfds = await openListed(pids.slice(0, roundMax), list);
    try {
      if (graceMs <= 0) {
        for (const pidfd of pidfds) sendSignal(pidfd, SIGKILL);
        await options.killed?.();
      }
      await endOf(poller, pidfds, Math.min(roundMs, untilEndMs, graceMs > 0 ? graceMs : roundMs));
    } finally {
      for (const pidfd of pidfds) closeFd(pidfd);
    }
  }
  return [];
}

/** Kills processes, as `endProcesses`, without waiting for their end. */
export async function killProcesses(list: ListProcesses): Promise<void> {
  for (const pidfd of await openListed(await list(), list)) {
    sendSignal(pidfd, SIGKILL);
    closeFd(pidfd);
  }
}

/** @returns Pidfds of the processes that are listed again after their pidfds were opened: from then on their pids cannot be reused. */
async function openListed(pids: readonly number[], list: ListProcesses): Promise<number[]> {
  const opened = pids.flatMap((pid) => {
    const pidfd = pidfdOf(pid);
    return pidfd === undefined ? [] : [{ pid, pidfd }];
  });
  const listed = new Set(opened.length > 0 ? await list() : []);
  return opened.flatMap(({ pid, pidfd }) => {
    if (listed.has(pid)) return [pidfd];
    closeFd(pidfd);
    return [];
  });
}

/** @returns undefined when it has ended. */
function pidfdOf(pid: number): number | undefined {
  try {
    return openPidfd(pid);
  } catch (error) {
    if (error instanceof SystemCallError && error.code === "ESRCH") return undefined;
    throw error;
  }
}

/** Waits until all have ended, or for `timeoutMs`. */
async function endOf(poller: Poller, pidfds: readonly number[], timeoutMs: number): Promise<void> {
  const watches = pidfds.map((pidfd) => poller.watch(pidfd));
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, timeoutMs);
  try {
    const ends = watches.map((watch) => new Promise<void>((ended) => watch.arm("in", ended)));
    await Promise.race([Promise.all(ends), late]);
  } finally {
    clearTimeout(timer);
    for (const watch of watches) watch.close();
  }
}

/** Pids of all processes that are visible to this one. */
export function allPids(): number[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number);
}
