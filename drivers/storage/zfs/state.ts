import { readFileSync } from "node:fs";

/** @param pool Name of the ZFS pool. @returns Why it cannot be used just now, in words for the user. Costs no process: the kernel has a file for
 * each imported pool. @see zpoolconcepts(7) */
export function absenceOf(pool: string): string | undefined {
  let state: string;
  try {
    state = readFileSync(`/proc/spl/kstat/zfs/${pool}/state`, "utf8").trim();
  } catch {
    return `ZFS pool "${pool}" is not imported`;
  }
  return state === "SUSPENDED" ? suspension(pool) : undefined;
}

export function isSuspended(pool: string): boolean {
  return absenceOf(pool) === suspension(pool);
}

export function suspension(pool: string): string {
  return `ZFS pool "${pool}" is suspended: its devices do not answer; once they do, "zpool clear ${pool}" lets it go on`;
}
