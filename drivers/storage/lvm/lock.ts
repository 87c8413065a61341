import { readFile, stat } from "node:fs/promises";

/** Which process has LVM's lock of a volume group, for the message after a wait timed out.
 * @returns "process 123 (vgchange)"; undefined when no process has it. @see lvm.conf(5) locking_dir, proc_locks(5) */
export async function lockedBy(group: string): Promise<string | undefined> {
  const file = await stat(`/run/lock/lvm/V_${group}`).catch(() => undefined);
  if (!file) return undefined;
  const pid = holderOf(await readFile("/proc/locks", "utf8"), file.ino);
  if (pid === undefined || pid === process.pid) return undefined;
  const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
  return `process ${pid} (${name.trim() || "unknown"})`;
}

/** @param locks /proc/locks: "1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF"; waiters have "->" before the kind. */
export function holderOf(locks: string, inode: number): number | undefined {
  for (const line of locks.split("\n")) {
    const [, kind, , , pid, place] = line.trim().split(/\s+/);
    if (kind !== "->" && place?.endsWith(`:${inode}`)) return Number(pid);
  }
  return undefined;
}
