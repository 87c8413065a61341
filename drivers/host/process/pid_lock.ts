import { readFileSync } from "node:fs";
import { check, cString, errno, libc } from "../ffi/libc.ts";

const O_RDWR = 2, O_CREAT = 0x40, O_CLOEXEC = 0x80000;
const LOCK_EX = 2, LOCK_NB = 4, EWOULDBLOCK = 11;

/** A lock file that one process holds while it lives; its pid is in it. The kernel releases the lock however the process ends. @see flock(2) */
export class PidLock implements Disposable {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @returns The lock, or the pid of the process that holds it. */
  static take(path: string): PidLock | { readonly heldBy: number } {
    const fd = check(`open "${path}"`, libc.open(cString(path), O_RDWR | O_CREAT | O_CLOEXEC, 0o644));
    if (libc.flock(fd, LOCK_EX | LOCK_NB) !== 0) {
      const reason = errno();
      libc.close(fd);
      if (reason === EWOULDBLOCK) return { heldBy: Number(readFileSync(path, "utf8")) };
      check(`lock "${path}"`, -1);
    }
    const text = new TextEncoder().encode(`${process.pid}\n`);
    // Write before truncating: on a full disk an emptied file would not get its block back.
    check(`write "${path}"`, Number(libc.write(fd, text, text.length)));
    check(`cut "${path}"`, libc.ftruncate(fd, text.length));
    return new PidLock(fd);
  }

  [Symbol.dispose](): void {
    libc.close(this.#fd);
  }
}
