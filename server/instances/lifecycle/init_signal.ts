/** The signal that makes an init halt its system: SIGRTMIN+3 for systemd, SIGPWR for sysvinit, busybox and the others, as LXC.
 *
 * The kernel drops a signal that the first process of a pid namespace has no handler for. So systemd is sent its signal once, when it has the
 * signalfd that it reads signals from; that takes a while after a start, a reboot from inside, or a script that ends with `exec` of systemd. A mask
 * that blocks the signal proves nothing: a shell blocks all signals for a moment to fork.
 *
 * Nothing shows whether another init has received SIGPWR: busybox waits for it in sigtimedwait(2), which removes it from the mask; sysvinit catches
 * it from its first milliseconds on, and forgets it if it came while its boot scripts ran. So SIGPWR is sent again, at growing intervals, and at once
 * when the init has executed another program or changed its handlers. No event reports that, so it is polled, at 50 µs each time. */

import { readdir, readFile, readlink } from "node:fs/promises";
import { basename } from "node:path";

const SIGPWR = 30;
/** SIGRTMIN+3 with glibc's SIGRTMIN of 34. @see systemd(1), SIGNALS */
const SIGRTMIN_3 = 37;

const lookMinMs = 100, lookMaxMs = 500;
/** Intervals between one SIGPWR and the next. They grow slowly, so that an init gets one soon after the end of its boot. */
const againMinMs = 1000, againGrowth = 1.25, againMaxMs = 10_000;

/** Masks have bit n - 1 for signal n. */
export interface Listener {
  /** Path of its executable; "" when the process has ended. */
  readonly program: string;
  /** Signals it has handlers for. */
  readonly caught: bigint;
  /** Signals it reads from a descriptor. @see signalfd(2) */
  readonly read: bigint;
}

/** @returns The signal for this init; undefined when it is too early for one. */
export function haltSignal({ program, read }: Listener): number | undefined {
  if ((read & (1n << BigInt(SIGRTMIN_3 - 1))) !== 0n) return SIGRTMIN_3;
  return basename(program) === "systemd" ? undefined : SIGPWR;
}

/** Asks an init to halt its system: systemd once, another init again and again until `over`.
 * @param pid In the host's pid namespace. @param options.over Resolves when the init's end is no longer waited for. */
export async function askToHalt(
  pid: number,
  options: { send: (signal: number) => Promise<void>; over: Promise<unknown> },
): Promise<void> {
  let isOver = false;
  const over = options.over.then(() => void (isOver = true));
  let lastSeen = "", againAt = 0, againMs = againMinMs;
  for (let pauseMs = lookMinMs;; pauseMs = Math.min(1.5 * pauseMs, lookMaxMs)) {
    const listener = await listenerOf(pid);
    if (isOver) return;
    const signal = haltSignal(listener);
    if (signal === SIGRTMIN_3) return await options.send(signal);
    const seen = `${listener.program} ${listener.caught}`;
    if (seen !== lastSeen) [lastSeen, againAt, againMs] = [seen, 0, againMinMs];
    if (signal !== undefined && performance.now() >= againAt) {
      await options.send(signal);
      [againAt, againMs] = [performance.now() + againMs, Math.min(againGrowth * againMs, againMaxMs)];
    }
    await within(pauseMs, over);
  }
}

async function within(ms: number, over: Promise<void>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([promise, over]);
  clearTimeout(timer);
}

async function listenerOf(pid: number): Promise<Listener> {
  const [program, status, read] = await Promise.all([
    readlink(`/proc/${pid}/exe`).catch(() => ""),
    readFile(`/proc/${pid}/status`, "utf8").catch(() => ""),
    readByDescriptor(pid),
  ]);
  return { program, caught: mask(/^SigCgt:\s*([0-9a-f]+)$/m, status), read };
}

async function readByDescriptor(pid: number): Promise<bigint> {
  const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
  let read = 0n;
  for (const descriptor of descriptors.slice(0, descriptorsMax)) {
    const target = await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => "");
    if (target !== "anon_inode:[signalfd]") continue;
    const info = await readFile(`/proc/${pid}/fdinfo/${descriptor}`, "utf8").catch(() => "");
    read |= mask(/^sigmask:\s*([0-9a-f]+)$/m, info);
  }
  return read;
}
/** How many descriptors of an init are read, lowest first: it opens its signalfd early (systemd: 5), and may be made to have very many. */
const descriptorsMax = 256;

function mask(pattern: RegExp, text: string): bigint {
  return BigInt(`0x${pattern.exec(text)?.[1] ?? "0"}`);
}
