/** The client's own stdin, stdout and stderr by file descriptor, without process.stdin and process.stdout: those cost a
 * start 9 ms on Bun, set pipes to non-blocking for everyone who shares them, and hide errors.
 * node:fs itself is loaded only when the first byte moves. */

import type { Readable, Writable } from "node:stream";
import { OutputError, reasonOf } from "../client/errors.ts";
import { isTerminal } from "../terminal/is_terminal.ts";

/** Largest single read, in bytes. */
const readBytesMax = 256 * 1024;
/** How long to wait before asking a non-blocking descriptor again, in milliseconds. */
const retryMs = 5;

function codeOf(error: unknown): string | undefined {
  return (error as { code?: string } | null)?.code;
}

/** Bun's own API. */
interface BunGlobal {
  readonly Bun?: {
    readonly stdin: { stream(): AsyncIterable<Uint8Array> };
    file(path: string): { text(): Promise<string> };
  };
}

/** Reads a small file as text; loading node:fs would cost 2 of a client's 14 ms. */
export async function readFileText(path: string): Promise<string> {
  const { Bun } = globalThis as BunGlobal;
  return Bun ? await Bun.file(path).text() : (await import("node:fs")).readFileSync(path, "utf8");
}

/** Reads a descriptor from its present offset to the end: bytes read of a file are consumed for all processes that share the offset, and the rest
 * stays for them. Ends at end of file, at a terminal that hung up (EIO), and at a closed descriptor.
 * A chunk is valid until the next is requested.
 * @throws The system's error on any other failure, such as EISDIR. @see read(2) */
export async function* readDescriptor(fd: number): AsyncGenerator<Uint8Array> {
  const { Bun } = globalThis as BunGlobal;
  try {
    // Bun's own reader waits in epoll and leaves the descriptor's flags alone; node:fs and its threads cost 1 ms of the 10 of an exec. But where
    // epoll does not apply (files), Bun reads by offsets of its own, from 0 on, and without end.
    if (fd === 0 && Bun !== undefined && await isWaitedFor(fd)) yield* Bun.stdin.stream();
    else yield* readByNode(fd, readBytesMax);
  } catch (error) {
    const code = codeOf(error);
    if (code !== "EIO" && code !== "EBADF") throw error;
  }
}

/** Stdin, to be sent as a whole. @throws {Error} "Cannot read stdin: …". */
async function* readStdin(): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of readDescriptor(0)) yield chunk.slice();
  } catch (error) {
    throw new Error(`Cannot read stdin: ${reasonOf(error)}`, { cause: error });
  }
}

/** All of stdin as text. */
export async function readText(): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of readStdin()) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

/** Stdin as a stream. */
export async function openStdin(): Promise<Readable> {
  const { Readable } = await import("node:stream");
  return Readable.from(readStdin(), { objectMode: false });
}

/** Reads the next line of stdin and not a byte more, as the shell's `read` does: the rest is for the next reader.
 * @returns The line without its newline, or undefined at the end of input. */
export async function readLine(): Promise<string | undefined> {
  const bytes: number[] = [];
  try {
    for await (const [byte] of readByNode(0, 1)) {
      if (byte === 10) return Buffer.from(bytes).toString("utf8");
      bytes.push(byte!);
    }
  } catch (error) {
    const code = codeOf(error);
    if (code !== "EIO" && code !== "EBADF") throw error;
  }
  return bytes.length > 0 ? Buffer.from(bytes).toString("utf8") : undefined;
}

/** Whether data may come later: a pipe, a socket or a terminal. */
async function isWaitedFor(fd: number): Promise<boolean> {
  const { fstatSync } = await import("node:fs");
  const stat = fstatSync(fd);
  return stat.isFIFO() || stat.isSocket() || (stat.isCharacterDevice() && await isTerminal(fd));
}

async function* readByNode(fd: number, bytesMax: number): AsyncGenerator<Uint8Array> {
  const { read } = await import("node:fs");
  const buffer = new Uint8Array(bytesMax);
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

/** Stdout as a stream. It fails with {@link OutputError}. */
export async function openStdout(): Promise<Writable> {
  const { Writable } = await import("node:stream");
  return new Writable({
    write: (chunk: Uint8Array, _encoding, done) => {
      writeDescriptor(1, chunk).then(() => done(), (error) => done(new OutputError(error)));
    },
  });
}

/** Writes a whole chunk; while a slow reader delays it, the event loop continues.
 * @throws The system's error, usually EPIPE. */
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
