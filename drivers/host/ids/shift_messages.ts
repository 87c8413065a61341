/** What the threads of `shift_tree.ts` say to one another. */

import type { IdMap } from "../id_map.ts";
import type { WasReadonly } from "./shift_readonly.ts";

export interface ShiftRequest {
  /** A descriptor; closed here. */
  readonly directory: number;
  readonly from: IdMap | undefined;
  readonly to: IdMap | undefined;
  /** Whether the directory itself was changed already. */
  readonly isPart: boolean;
  /** Of the words below. */
  readonly memory: Int32Array;
}

export interface ShiftAnswer {
  /** A descriptor of a directory that is given away. */
  readonly directory?: number;
  /** One that was made writable. */
  readonly subvolume?: WasReadonly;
  /** How many more entries are behind. */
  readonly entries?: number;
  /** How many of those were changed. */
  readonly changed?: number;
  /** The thread has nothing more to do. */
  readonly isDone?: boolean;
  /** The thread gave up with this error. */
  readonly failure?: string;
}

/** Words of the memory that the threads share: whether to stop, how many have nothing to do, and a lock. */
export const stopWord = 0, idleWord = 1, lockWord = 2;
