/** Messages between the threads of `shift_tree.ts`. */

import type { IdMap } from "../id_map.ts";
import type { WasReadonly } from "./shift_readonly.ts";

export interface ShiftRequest {
  /** A descriptor; the thread closes it. */
  readonly directory: number;
  readonly from: IdMap | undefined;
  readonly to: IdMap | undefined;
  /** Whether the directory itself was changed already. */
  readonly isPart: boolean;
  /** Shared memory of the words below. */
  readonly memory: Int32Array;
}

export interface ShiftAnswer {
  /** Descriptor of a directory that is handed over. */
  readonly directory?: number;
  /** A subvolume that was made writable. */
  readonly subvolume?: WasReadonly;
  /** Entries visited since the last message. */
  readonly entries?: number;
  /** Entries changed among those. */
  readonly changed?: number;
  /** The thread has no more work. */
  readonly isDone?: boolean;
  /** The thread gave up with this error. */
  readonly failure?: string;
}

/** Words of the memory that the threads share: whether to stop, the number of idle threads, and a lock. */
export const stopWord = 0, idleWord = 1, lockWord = 2;
