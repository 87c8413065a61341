import { readFile } from "node:fs/promises";

const sigusr2 = 12;
const sigpwr = 30;
/** SIGRTMIN+3 with glibc's SIGRTMIN of 34. @see systemd(1), SIGNALS */
const sigrtmin3 = 37;

/** Which signal makes this init shut its system down: what it waits for tells what it is. systemd blocks SIGRTMIN+3 (it reads a signalfd), sysvinit
 * and busybox take SIGPWR, an older busybox SIGUSR2 only.
 * @param status Text of /proc/<pid>/status. @returns undefined when it waits for none of them (yet).
 * @see LXC's task_blocks_signal() in lxccontainer.c */
export function haltSignal(status: string): number | undefined {
  const waited = mask(status, "SigBlk") | mask(status, "SigCgt");
  for (const signal of [sigrtmin3, sigpwr, sigusr2]) if (waited & (1n << BigInt(signal - 1))) return signal;
  return undefined;
}

/** As `haltSignal`, for a process. @param pid As the host sees it. */
export async function haltSignalOf(pid: number): Promise<number | undefined> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return haltSignal(status);
}

function mask(status: string, field: string): bigint {
  const match = new RegExp(`^${field}:\\s*([0-9a-f]+)$`, "m").exec(status);
  return match ? BigInt(`0x${match[1]}`) : 0n;
}
