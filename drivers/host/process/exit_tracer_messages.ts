export interface TraceRequest {
  readonly pids: readonly number[];
}

export type TraceEvent =
  /** @property status As from wait(2). */
  | { readonly kind: "ended"; readonly pid: number; readonly status: number }
  /** The process is not traced, or no longer. */
  | { readonly kind: "lost"; readonly pid: number }
  /** No process is left to trace. */
  | { readonly kind: "done" };
