/** The thread of `exit_tracer.ts`: a tracer is a thread, and its waitpid(2) blocks. */
import type { TraceEvent, TraceRequest } from "./exit_tracer_messages.ts";

const PTRACE_CONT = 7, PTRACE_DETACH = 17, PTRACE_SEIZE = 0x4206, PTRACE_LISTEN = 0x4208, PTRACE_EVENT_STOP = 128;
/** Waits for our tracees and for no children: the children of the daemon's other threads are theirs to wait for. */
const __WALL = 0x40000000, __WNOTHREAD = 0x20000000;
const SIGSTOP = 19, SIGTSTP = 20, SIGTTIN = 21, SIGTTOU = 22;
const stopSignals = [SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU];
const EINTR = 4;
/** An init that gets more signals per second than this is no longer traced: its exit status is not worth a CPU of the host. */
const signalsMax = 2000;

const thread = self as unknown as {
  onmessage: (message: MessageEvent<TraceRequest>) => void;
  postMessage(event: TraceEvent): void;
};

thread.onmessage = async ({ data: { pids } }) => {
  // Loaded only now: a message that arrives before `onmessage` is set would be lost.
  const { errno, libc } = await import("../ffi/libc.ts");
  const ptrace = (request: number, pid: number, data = 0) => Number(libc.ptrace(request, pid, 0, data));
  for (const pid of pids) if (ptrace(PTRACE_SEIZE, pid) < 0) thread.postMessage({ kind: "lost", pid });
  const counts = new Map<number, { second: number; signals: number }>();
  const isTooMany = (pid: number): boolean => {
    const second = Math.floor(performance.now() / 1000), before = counts.get(pid);
    const signals = before?.second === second ? before.signals + 1 : 1;
    counts.set(pid, { second, signals });
    return signals > signalsMax;
  };
  const status = new Int32Array(1);
  for (;;) {
    const pid = Number(libc.waitpid(-1, new Uint8Array(status.buffer), __WALL | __WNOTHREAD));
    if (pid < 0) {
      if (errno() === EINTR) continue;
      break; // ECHILD: none is left
    }
    const word = status[0]!;
    if ((word & 0xff) !== 0x7f) {
      thread.postMessage({ kind: "ended", pid, status: word });
      continue;
    }
    const signal = (word >> 8) & 0xff, event = word >>> 16;
    if (event === PTRACE_EVENT_STOP) {
      // After a stop by a signal it stays stopped; any other such event is the end of a stop.
      ptrace(stopSignals.includes(signal) ? PTRACE_LISTEN : PTRACE_CONT, pid);
    } else if (isTooMany(pid)) {
      ptrace(PTRACE_DETACH, pid, signal);
      thread.postMessage({ kind: "lost", pid });
    } else {
      ptrace(PTRACE_CONT, pid, signal);
    }
  }
  thread.postMessage({ kind: "done" });
};
