export interface TraceRequest {
  readonly pids: readonly number[];
}

export type TraceEvent =
  /** @property status As of wait(2). */
  | { readonly kind: "ended"; readonly pid: number; readonly status: number }
  /** It is not traced, or not any more. */
  | { readonly kind: "lost"; readonly pid: number }
  /** Nothing is left to trace. */
  | { readonly kind: "done" };
