import { readdirSync } from "node:fs";
import { SystemCallError } from "../ffi/libc.ts";
import type { Poller } from "../poll/poll.ts";
import { closeFd, openPidfd, sendSignal } from "./process.ts";

const SIGKILL = 9;
/** Of a round: a descriptor each. */
const roundMax = 256;
/** How long the end of a round is waited for before one looks again at what is there: some may have started others meanwhile. */
const roundMs = 500;

/** Pids of those that are to end, as they are now. */
type ListProcesses = () => readonly number[] | Promise<readonly number[]>;

/** Ends processes, and those that they start meanwhile.
 * @param list Pids of those that are to end. Asked again and again; a pid counts while it is in the list: it may be another process's a moment later.
 * @param options.timeoutMs How long to wait for their end. @param options.graceMs How long of it they may go on, to end by themselves.
 * @param options.killed Called when all that were there at a moment have been killed.
 * @returns Those that have not ended: they wait for a device that does not answer. */
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

/** Kills processes, as `endProcesses`, and does not wait for their end. */
export async function killProcesses(list: ListProcesses): Promise<void> {
  for (const pidfd of await openListed(await list(), list)) {
    sendSignal(pidfd, SIGKILL);
    closeFd(pidfd);
  }
}

/** @returns Descriptors of those that live and are still in the list, now that their pids cannot be used again. */
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

/** Waits until all have ended, or the time is up. */
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

/** Pids of all processes that this one can see. */
export function allPids(): number[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number);
}
