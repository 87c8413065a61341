import type { Poller } from "../../host/poll/poll.ts";
import { closeFd, type ExitStatus, openPidfd, sendSignal, waitPid } from "../../host/process/process.ts";

/** Waits for a child to end and reaps it. */
export function childEnd(poller: Poller, pid: number): Promise<ExitStatus> {
  const pidfd = openPidfd(pid);
  const watch = poller.watch(pidfd);
  return new Promise((resolve, reject) => {
    watch.arm("in", () => {
      watch.close();
      closeFd(pidfd);
      try {
        resolve(waitPid(pid)!);
      } catch (error) {
        reject(error);
      }
    });
  });
}

/** Resolves when `fd` is readable. @param signal Aborts the wait. @throws {Error} After `timeoutMs`, or the signal's reason. */
export function readable(
  poller: Poller,
  fd: number,
  timeoutMs: number,
  what: string,
  signal?: AbortSignal,
): Promise<void> {
  const watch = poller.watch(fd);
  return new Promise((resolve, reject) => {
    const ended = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      watch.close();
    };
    const abort = () => {
      ended();
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      ended();
      reject(new Error(`${what} took longer than ${timeoutMs} ms`));
    }, timeoutMs);
    signal?.addEventListener("abort", abort);
    watch.arm("in", () => {
      ended();
      resolve();
    });
  });
}

/** @returns Whether a process, a child or not, ends within the time. */
export async function endsWithin(poller: Poller, pid: number, timeoutMs: number): Promise<boolean> {
  let pidfd: number;
  try {
    pidfd = openPidfd(pid);
  } catch {
    return true; // it has ended and was reaped
  }
  try {
    return await readable(poller, pidfd, timeoutMs, "its end").then(() => true, () => false);
  } finally {
    closeFd(pidfd);
  }
}

/** Waits for a child to end, and kills it at the timeout. */
export async function childEndWithin(poller: Poller, pid: number, timeoutMs: number): Promise<ExitStatus> {
  const pidfd = openPidfd(pid);
  const timer = setTimeout(() => sendSignal(pidfd, 9), timeoutMs);
  try {
    return await childEnd(poller, pid);
  } finally {
    clearTimeout(timer);
    closeFd(pidfd);
  }
}
