import { check, errno, libc } from "../ffi/libc.ts";

const POLLIN = 1, EINTR = 4;
const longestMs = 2 ** 31 - 1;

/** Waits for the end of a process that need not be a child. By then the kernel has closed its descriptors and released its locks.
 * @see pidfd_open(2) */
export class ProcessEnd implements Disposable {
  readonly #pidfd: number;

  /** @throws {SystemCallError} ESRCH when there is no such process. */
  constructor(pid: number) {
    this.#pidfd = check(`open process ${pid}`, libc.pidfd_open(pid, 0));
  }

  /** Blocks the thread: for a client that has nothing else to do.
   * @param timeoutMs May be infinite. @returns Whether the process has ended. */
  wait(timeoutMs: number): boolean {
    const deadline = performance.now() + timeoutMs;
    const entry = new Uint8Array(8);
    const view = new DataView(entry.buffer);
    view.setInt32(0, this.#pidfd, true);
    view.setInt16(4, POLLIN, true);
    while (true) {
      const leftMs = Math.max(0, Math.min(deadline - performance.now(), longestMs));
      const count = Number(libc.poll(entry, 1, Math.ceil(leftMs)));
      if (count > 0) return true;
      if (count < 0 && errno() !== EINTR) check("wait for a process", count);
      if (performance.now() >= deadline) return false;
    }
  }

  [Symbol.dispose](): void {
    libc.close(this.#pidfd);
  }
}
