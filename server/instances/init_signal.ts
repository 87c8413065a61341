import { readFile, readlink } from "node:fs/promises";
import { basename } from "node:path";

export const SIGPWR = 30;
/** SIGRTMIN+3 with glibc's SIGRTMIN of 34. @see systemd(1), SIGNALS */
const SIGRTMIN_3 = 37;

/** Which signal makes this init shut its system down: SIGRTMIN+3 for systemd, as soon as it has it blocked (it reads a signalfd; before that the signal
 * would be lost); SIGPWR for sysvinit, busybox and the others, as LXC. What busybox waits for cannot be seen: sigtimedwait(2)
 * takes it out of the mask while it sleeps.
 * @param program Path of the init's executable. @param status Text of /proc/<pid>/status.
 * @returns undefined when it is too early to send one. */
export function haltSignal(program: string, status: string): number | undefined {
  const isWaiting = (blocked(status) & (1n << BigInt(SIGRTMIN_3 - 1))) !== 0n;
  if (isWaiting) return SIGRTMIN_3;
  return basename(program) === "systemd" ? undefined : SIGPWR;
}

/** As `haltSignal`, for a process. @param pid As the host sees it. */
export async function haltSignalOf(pid: number): Promise<number | undefined> {
  const [program, status] = await Promise.all([
    readlink(`/proc/${pid}/exe`).catch(() => ""),
    readFile(`/proc/${pid}/status`, "utf8").catch(() => ""),
  ]);
  return haltSignal(program, status);
}

function blocked(status: string): bigint {
  const match = /^SigBlk:\s*([0-9a-f]+)$/m.exec(status);
  return match ? BigInt(`0x${match[1]}`) : 0n;
}
