import type { TraceEvent, TraceRequest } from "./exit_tracer_messages.ts";
import { type ExitStatus, statusOf } from "./process.ts";
import { workerUrl } from "../ffi/worker_url.ts";

/** Time from the pidfd's event to the thread's answer, which comes as soon as the thread is scheduled. */
const answerTimeoutMs = 2000;

/** Reports how processes ended that are not our children, exactly as wait(2) reports it to their parent.
 *
 * It is for the inits of containers that an earlier daemon started. reboot(2) in a pid namespace kills its init by SIGKILL and puts SIGHUP or SIGINT
 * into the status of wait(2). The kernel's other sources (PIDFD_GET_INFO, the process events connector, taskstats) all report SIGKILL, and
 * /proc/PID/stat has the status only until the parent has reaped the process, which systemd does within a millisecond. A tracer is notified before
 * the parent. So one thread traces them (PTRACE_SEIZE) and only passes on their signals: an init that reads its signals from a signalfd, as systemd
 * does, is not stopped at all; others are stopped for some 50 µs per signal. When this thread or the daemon ends, the kernel ends the tracing.
 * @see ptrace(2), pid_namespaces(7) */
export class ExitTracer {
  readonly #states = new Map<number, PromiseWithResolvers<ExitStatus | undefined>>();
  #worker: Worker | undefined;

  /** Called once, with all processes: the thread takes no later requests. */
  start(pids: readonly number[]): void {
    if (pids.length === 0 || this.#worker) return;
    for (const pid of pids) this.#states.set(pid, Promise.withResolvers());
    const worker = new Worker(workerUrl("drivers/host/process/exit_tracer_worker.ts"), { type: "module" });
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<TraceEvent>) => {
      if (data.kind === "done") return this.close();
      this.#states.get(data.pid)?.resolve(data.kind === "ended" ? statusOf(data.status) : undefined);
    };
    const request: TraceRequest = { pids };
    worker.postMessage(request);
  }

  /** To be called when a process has ended. @returns undefined if it is not traced: tracing was refused (Yama), or it got too many signals. */
  async ended(pid: number): Promise<ExitStatus | undefined> {
    const state = this.#states.get(pid);
    if (!state) return undefined;
    const timer = setTimeout(() => state.resolve(undefined), answerTimeoutMs);
    try {
      return await state.promise;
    } finally {
      clearTimeout(timer);
      this.#states.delete(pid);
    }
  }

  close(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    for (const state of this.#states.values()) state.resolve(undefined);
  }
}
