import type { IdMap } from "../id_map.ts";
import { libc } from "../ffi/libc.ts";
import { ownerShift } from "./shift_owners.ts";
import { closeReadonly, type WasReadonly } from "./shift_readonly.ts";
import { type ShiftResult, ShiftThreads } from "./shift_threads.ts";
import { openTree, type WalkOptions, walkSteps } from "../files/walk_tree.ts";

/** Changes the owners of a whole tree in place, for filesystems without idmapped mounts and for volumes that containers share. The tree is hostile:
 * the walk follows no symlink. A small tree is changed at once; a larger one is handed to threads, so that the daemon goes on serving. */

/** Changes every owner below and including `root` from one map to another.
 * @param from Absent: ids as in the image. @param to Likewise.
 * @throws {SystemCallError} If the filesystem refuses; repeat the call to continue. Or {OwnerError}; from a thread an error with its text. */
export async function shiftTree(
  root: string,
  from: IdMap | undefined,
  to: IdMap | undefined,
  options: WalkOptions = {},
): Promise<ShiftResult> {
  options.signal?.throwIfAborted();
  const readonly = new Map<bigint, WasReadonly>();
  const opened = (subvolume: WasReadonly) => void readonly.set(subvolume.id, subvolume);
  try {
    const shift = ownerShift(from, to, { isWithin: false, exclusively: (work) => work(), opened });
    const walk = walkSteps(openTree(root), shift);
    const { value, done } = walk.next();
    if (!done) {
      walk.return(0);
      const { entries, changed } = await new ShiftThreads(from, to, options, opened).run(root);
      return { entries, changed: shift.changed + changed };
    }
    options.progress?.(value);
    return { entries: value, changed: shift.changed };
  } finally {
    if (readonly.size > 0) close(root, [...readonly.values()]);
  }
}

function close(root: string, subvolumes: readonly WasReadonly[]): void {
  const directory = openTree(root);
  try {
    closeReadonly(directory, subvolumes);
  } finally {
    libc.close(directory);
  }
}
