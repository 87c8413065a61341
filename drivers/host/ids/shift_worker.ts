/** A thread of `shift_tree.ts`: walks one part of a tree, and hands directories to idle threads. */

import type { WasReadonly } from "./shift_readonly.ts";
import { idleWord, lockWord, type ShiftAnswer, type ShiftRequest, stopWord } from "./shift_messages.ts";

const thread = self as unknown as {
  onmessage: (message: MessageEvent<ShiftRequest>) => void;
  postMessage(data: ShiftAnswer): void;
};

const CLONE_FS = 0x200;
const tellEveryMs = 100;

thread.onmessage = async ({ data }) => {
  try {
    await walk(data);
    thread.postMessage({ isDone: true });
  } catch (error) {
    thread.postMessage({ failure: error instanceof Error ? error.message : String(error) });
  }
};

async function walk({ directory, from, to, isPart, memory }: ShiftRequest): Promise<void> {
  // Loaded only now: an import of libc awaits, and a message that arrives before `onmessage` is set would be lost.
  const { check, cString, libc } = await import("../ffi/libc.ts");
  const { ownerShift } = await import("./shift_owners.ts");
  const { walkSteps } = await import("../files/walk_tree.ts");
  check("unshare(CLONE_FS)", libc.unshare(CLONE_FS));
  const exclusively = (work: () => void) => {
    while (Atomics.compareExchange(memory, lockWord, 0, 1) !== 0) Atomics.wait(memory, lockWord, 1);
    try {
      work();
    } finally {
      Atomics.store(memory, lockWord, 0);
      Atomics.notify(memory, lockWord, 1);
    }
  };
  /** Claims an idle thread, so that only one of several threads hands over a directory to it. */
  const give = () => {
    const count = Atomics.load(memory, idleWord);
    if (count <= 0 || Atomics.compareExchange(memory, idleWord, count, count - 1) !== count) return undefined;
    return (given: number) => thread.postMessage({ directory: given });
  };
  const opened = (subvolume: WasReadonly) => thread.postMessage({ subvolume });
  const shift = ownerShift(from, to, { isWithin: true, exclusively, opened });
  const steps = walkSteps(directory, shift, {
    isPart,
    give,
    entered: (current) => void check("enter a directory", libc.fchdir(current)),
  });
  let told = 0, toldChanged = 0;
  let toldAt = performance.now();
  try {
    for (let step = steps.next();; step = steps.next()) {
      if (step.done || performance.now() - toldAt > tellEveryMs) {
        thread.postMessage({ entries: step.value - told, changed: shift.changed - toldChanged });
        told = step.value;
        toldChanged = shift.changed;
        toldAt = performance.now();
      }
      if (step.done) return;
      if (Atomics.load(memory, stopWord) !== 0) return void steps.return(0);
    }
  } finally {
    // Leave the last directory, so that it is not kept busy.
    libc.chdir(cString("/"));
  }
}
