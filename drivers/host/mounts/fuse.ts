import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readHead } from "../files/read_head.ts";

/** FUSE filesystems by the numbers of their connections. A process that waits for one cannot be killed until the filesystem answers or is
 * aborted. @see Documentation/filesystems/fuse/fuse.rst of the kernel */

const mountsBytesMax = 1 << 22;

/** @returns The connections of the FUSE filesystems mounted in a process's namespace; only of the first tens of thousands of mounts. */
export function fuseConnections(pid: number | "self"): Set<string> {
  const found = new Set<string>();
  for (const line of mountsOf(pid).split("\n")) {
    const [, minor] = /^\d+ \d+ \d+:(\d+) .* - fuse(?:blk|\.\S*)? /.exec(line) ?? [];
    if (minor !== undefined) found.add(minor);
  }
  return found;
}

/** Aborts the connections that a process waits for: the waiting process gets an error, now and later.
 * @param control Mount point of a fusectl filesystem. @returns The aborted connections. */
export function abortWaitedFor(control: string, connections: Iterable<string>): string[] {
  return [...connections].filter((connection) => {
    try {
      if (Number(readFileSync(join(control, connection, "waiting"), "utf8")) === 0) return false;
      writeFileSync(join(control, connection, "abort"), "1");
      return true;
    } catch {
      return false; // the connection has ended
    }
  });
}

function mountsOf(pid: number | "self"): string {
  try {
    return readHead(`/proc/${pid}/mountinfo`, mountsBytesMax);
  } catch {
    return ""; // it has ended
  }
}
