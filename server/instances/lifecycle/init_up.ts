import { readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";

/** When a container counts as started.
 *
 * For LXD it does as soon as the init is executed; if the init ends right after, a client that was told it runs finds it STOPPED. Here a start is
 * complete when the first of these has happened:
 * - the init has ended: the start fails, or says that it ended at once when that was no failure;
 * - the init is a program that is known as one (`inits`), and catches a signal by which inits are controlled: it has come through its set-up;
 * - it is such a program and has blocked such a signal, to read it from a signalfd, for 8 ms;
 * - a second has passed.
 * busybox, sysvinit, OpenRC, runit, s6 and systemd do so 1 to 20 ms after they were executed. For every other program the wait is the whole second,
 * whatever it does with its signals: an entrypoint script sets its traps first and fails after that, a Go program catches every signal before it does
 * anything, and nothing distinguishes a program that keeps running from one that is about to fail. The 8 ms are for systemd, which blocks its signals
 * 1 ms before it fails when it is refused its control group.
 *
 * No event reports that a handler is set, so /proc/PID/status is polled, at 30 µs each time: once or twice for busybox, ten times for systemd, 45
 * times at most. */

/** An init that ends within this time has not really started. */
const firstSecondMs = 1000;
const steadyMs = 8;
const pauseMinMs = 1, pauseMaxMs = 25;

const SIGHUP = 1, SIGUSR1 = 10, SIGUSR2 = 12, SIGTERM = 15, SIGCONT = 18, SIGTSTP = 20, SIGPWR = 30, SIGRTMIN_3 = 37;
/** Without signals that other programs handle as well: SIGCHLD and SIGINT (bash, python), and those of crashes. */
const controlSignals = [SIGHUP, SIGUSR1, SIGUSR2, SIGTERM, SIGCONT, SIGTSTP, SIGPWR, SIGRTMIN_3]
  .reduce((mask, signal) => mask | (1n << BigInt(signal - 1)), 0n);

/** What a process does with the signals that control an init. @param status Text of /proc/PID/status. */
export function controlSignalsIn(status: string): "caught" | "blocked" | undefined {
  if (/^State:\s*[ZX]/m.test(status)) return undefined;
  const has = (name: string): boolean => {
    const match = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, "m").exec(status);
    return match !== null && (BigInt(`0x${match[1]}`) & controlSignals) !== 0n;
  };
  return has("SigCgt") ? "caught" : has("SigBlk") ? "blocked" : undefined;
}

/** Basenames of the executables of inits. */
const inits: ReadonlySet<string> = new Set([
  "dinit",
  "finit",
  "init", // sysvinit, upstart
  "openrc-init",
  "procd",
  "runit",
  "runit-init",
  "s6-svscan",
  "systemd",
]);
/** Executables that are many programs, chosen by the name they are executed by: an init, or the shell of a script in an init's place. */
const multicall: ReadonlySet<string> = new Set(["busybox", "toybox"]);

/** Whether a program is a real init, not another program in its place. @param executable Target of /proc/PID/exe.
 * @param called Name it was executed by; for the shell of a script, the script's name. */
export function isInit(executable: string, called: { readonly name: string; readonly isScript: boolean }): boolean {
  const name = basename(executable);
  return multicall.has(name) ? !called.isScript && inits.has(called.name) : inits.has(name);
}

/** Waits until an init is up. @param pid In the host's pid namespace. @param isScript Whether the file that was executed is a script.
 * @param ended Resolves when it has ended. @param unwatched Ends the wait early.
 * @returns How it ended; undefined if it is up or the wait was ended. */
export async function initUp<End>(
  { pid, isScript }: { pid: number; isScript: boolean },
  ended: Promise<End>,
  unwatched?: AbortSignal,
): Promise<End | undefined> {
  const startedAt = performance.now();
  let end: { readonly how: End } | undefined;
  const watched = ended.then((how) => void (end = { how }));
  const { promise: cut, resolve } = Promise.withResolvers<void>();
  unwatched?.addEventListener("abort", () => resolve(), { once: true });
  let blockedSince: number | undefined;
  for (let pauseMs = pauseMinMs; !end && !unwatched?.aborted; pauseMs = Math.min(2 * pauseMs, pauseMaxMs)) {
    const status = read(`/proc/${pid}/status`);
    const known = status === undefined ? undefined : controlSignalsIn(status);
    const signals = known !== undefined && isInitAt(pid, isScript) ? known : undefined;
    const now = performance.now();
    if (signals === "caught" || now - startedAt >= firstSecondMs) break;
    // The process is gone, so `ended` is about to resolve.
    if (status === undefined) return await Promise.race([watched, pause(0)]).then(() => end?.how);
    if (signals === undefined) blockedSince = undefined;
    else if (blockedSince === undefined) [blockedSince, pauseMs] = [now, pauseMinMs];
    else if (now - blockedSince >= steadyMs) break;
    await Promise.race([watched, cut, pause(pauseMs)]);
  }
  return end?.how;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Does not read the command line: it is in the process's memory, which may be mapped from a file that never answers. */
function isInitAt(pid: number, isScript: boolean): boolean {
  const name = read(`/proc/${pid}/comm`)?.trim();
  try {
    return name !== undefined && isInit(readlinkSync(`/proc/${pid}/exe`), { name, isScript });
  } catch {
    return false;
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
