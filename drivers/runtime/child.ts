import type { Poller } from "../host/poll.ts";
import { closeFd, type ExitStatus, openPidfd, sendSignal, waitPid } from "../host/process.ts";

/** Waits for a child's end and reaps it. */
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

/** Resolves when `fd` is readable. @throws {Error} After `timeoutMs`. */
export function readable(poller: Poller, fd: number, timeoutMs: number, what: string): Promise<void> {
  const watch = poller.watch(fd);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      watch.close();
      reject(new Error(`${what} took longer than ${timeoutMs} ms`));
    }, timeoutMs);
    watch.arm("in", () => {
      clearTimeout(timer);
      watch.close();
      resolve();
    });
  });
}

/** Waits for a child's end, and kills it when it takes too long. */
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
