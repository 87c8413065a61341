/** The client's own stdin, stdout and stderr by file descriptor, without process.stdin and process.stdout: those cost a
 * start 9 ms on Bun, set pipes to non-blocking for everyone who shares them, and hide errors.
 * node:fs itself is loaded when the first byte moves, not before. */

/** Largest single read, in bytes. */
const readBytesMax = 256 * 1024;
/** How long to wait before asking a non-blocking descriptor again, in milliseconds. */
const retryMs = 5;

function codeOf(error: unknown): string | undefined {
  return (error as { code?: string } | null)?.code;
}

/** What Bun has of its own. */
interface BunGlobal {
  readonly Bun?: { readonly stdin: { stream(): AsyncIterable<Uint8Array> } };
}

/** Everything that can be read from a descriptor. Ends at end of file; a terminal that hung up (EIO) is one too.
 * A chunk is the reader's only until the next is asked for.
 * @throws The system's error on any other failure. */
export async function* readDescriptor(fd: number): AsyncGenerator<Uint8Array> {
  const { Bun } = globalThis as BunGlobal;
  // Bun's own reader waits in epoll and leaves the descriptor's flags alone; node:fs and its threads cost 1 ms of the 10 of an exec.
  const chunks = fd === 0 && Bun !== undefined ? Bun.stdin.stream() : readByNode(fd);
  try {
    yield* chunks;
  } catch (error) {
    const code = codeOf(error);
    if (code !== "EIO" && code !== "EBADF") throw error;
  }
}

async function* readByNode(fd: number): AsyncGenerator<Uint8Array> {
  const { read } = await import("node:fs");
  const buffer = new Uint8Array(readBytesMax);
  while (true) {
    const outcome = await new Promise<number | Error>((resolve) =>
      read(fd, buffer, 0, buffer.length, null, (error, count) => resolve(error ?? count))
    );
    if (outcome === 0) return;
    if (typeof outcome === "number") {
      yield buffer.subarray(0, outcome);
      continue;
    }
    const code = codeOf(outcome);
    if (code === "EAGAIN" || code === "EINTR") await new Promise((resolve) => setTimeout(resolve, retryMs));
    else throw outcome;
  }
}

/** Writes all of a chunk; the event loop runs on while a slow reader makes it wait.
 * @throws The system's error, EPIPE above all. */
export async function writeDescriptor(fd: number, chunk: Uint8Array): Promise<void> {
  const { write } = await import("node:fs");
  let offset = 0;
  while (offset < chunk.length) {
    const outcome = await new Promise<number | Error>((resolve) =>
      write(fd, chunk, offset, chunk.length - offset, null, (error, count) => resolve(error ?? count))
    );
    if (typeof outcome === "number") offset += outcome;
    else if (codeOf(outcome) === "EAGAIN") await new Promise((resolve) => setTimeout(resolve, retryMs));
    else if (codeOf(outcome) !== "EINTR") throw outcome;
  }
}
