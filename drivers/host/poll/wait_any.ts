import { errno, libc, SystemCallError } from "../ffi/libc.ts";

const POLLIN = 1, POLLERR = 8, POLLHUP = 16;
const EINTR = 4;
const entryBytes = 8;

/** What to wait for on a descriptor: something to read, or only its peer's end. */
export interface Awaited {
  readonly fd: number;
  readonly interest: "in" | "end";
}

/** Blocks this thread until one of the descriptors is ready. For processes that do nothing else; the daemon has `poll.ts`.
 * @param timeoutMs Absent: no timeout. @returns The ready ones, in their order; empty after the timeout. @see poll(2) */
export function waitForAny<T extends Awaited>(awaited: readonly T[], timeoutMs = -1): T[] {
  const { entries, view } = room(awaited.length);
  for (const [index, { fd, interest }] of awaited.entries()) {
    view.setInt32(index * entryBytes, fd, true);
    view.setInt16(index * entryBytes + 4, interest === "in" ? POLLIN : 0, true);
  }
  const count = Number(libc.poll(entries, awaited.length, timeoutMs));
  if (count < 0) {
    const number = errno();
    if (number === EINTR) return [];
    throw new SystemCallError("wait for descriptors", number);
  }
  if (count === 0) return [];
  return awaited.filter((_, index) =>
    (view.getInt16(index * entryBytes + 6, true) & (POLLIN | POLLERR | POLLHUP)) !== 0
  );
}

let entries = new Uint8Array(64 * entryBytes), view = new DataView(entries.buffer);

/** One buffer, reused: such a process does nothing but wait, and would create garbage each time. */
function room(count: number): { entries: Uint8Array; view: DataView } {
  if (entries.length < count * entryBytes) {
    entries = new Uint8Array(2 * count * entryBytes);
    view = new DataView(entries.buffer);
  }
  return { entries, view };
}
