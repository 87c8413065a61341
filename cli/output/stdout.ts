/** Stdout for verbs. `process.stdout` costs a start 9 ms on Bun, and `console.log` hides failed writes, so that a
 * full disk looks like success. */
import { writeSync } from "node:fs";
import { OutputError } from "../client/errors.ts";

/** How long to wait before asking a non-blocking descriptor again, in milliseconds. */
const retryMs = 5;

/** Writes at once and in order. A failure does not stop the verb, which may be changing the host: it is kept, and reported
 * by `outcome` when the verb has ended. */
export class Stdout {
  #failure: OutputError | undefined;

  /** @returns Whether the text was written; false too for every text after one that was not. */
  write(text: string): boolean {
    if (this.#failure !== undefined) return false;
    const bytes = new TextEncoder().encode(text);
    try {
      for (let offset = 0; offset < bytes.length;) offset += writeSome(bytes.subarray(offset));
    } catch (error) {
      this.#failure = new OutputError(error);
    }
    return this.#failure === undefined;
  }

  /** @param code The verb's own exit code. @returns The program's: if the verb's is 0, that of the failure. */
  outcome(code: number, err: (text: string) => void): number {
    if (this.#failure === undefined || code !== 0) return code;
    if (!this.#failure.isUnread) err(`Error: ${this.#failure.message}\n`);
    return this.#failure.exitCode;
  }
}

/** @returns The number of bytes written; 0 when a non-blocking descriptor takes none for now. */
function writeSome(bytes: Uint8Array): number {
  try {
    return writeSync(1, bytes);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EAGAIN" && code !== "EINTR") throw error;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, retryMs);
    return 0;
  }
}
