import { availableParallelism } from "node:os";
import type { IdMap } from "../id_map.ts";
import { libc } from "../ffi/libc.ts";
import { idleWord, type ShiftAnswer, type ShiftRequest, stopWord } from "./shift_messages.ts";
import type { WasReadonly } from "./shift_readonly.ts";
import { openTree, type WalkOptions } from "../files/walk_tree.ts";
import { workerUrl } from "../ffi/worker_url.ts";

const threadsMax = 4;

/** Result of a change of owners. */
export interface ShiftResult {
  readonly entries: number;
  /** Entries whose owner, ACL or capability was changed. */
  readonly changed: number;
}

/** The threads that change the owners of one large tree: the first starts at the root, and an idle one gets a directory from one that
 * has several to enter. */
export class ShiftThreads {
  readonly #opened: (subvolume: WasReadonly) => void;
  readonly #from: IdMap | undefined;
  readonly #to: IdMap | undefined;
  readonly #options: WalkOptions;
  readonly #memory = new Int32Array(new SharedArrayBuffer(12));
  readonly #counts = new Map<Worker, number>();
  readonly #idle: Worker[] = [];
  readonly #waiting: number[] = [];
  readonly #end = Promise.withResolvers<void>();
  #changed = 0;
  #failure: Error | undefined;

  /** @param opened Called for each read-only subvolume that was made writable, an outer one before those nested in it. */
  constructor(
    from: IdMap | undefined,
    to: IdMap | undefined,
    options: WalkOptions,
    opened: (subvolume: WasReadonly) => void,
  ) {
    this.#opened = opened;
    this.#from = from;
    this.#to = to;
    this.#options = options;
  }

  async run(root: string): Promise<ShiftResult> {
    const stop = () => Atomics.store(this.#memory, stopWord, 1);
    this.#options.signal?.addEventListener("abort", stop);
    this.#waiting.push(openTree(root));
    try {
      for (let index = Math.min(threadsMax, availableParallelism()); index > 0; index--) this.#add();
      this.#deal(true);
      await this.#end.promise;
    } finally {
      this.#options.signal?.removeEventListener("abort", stop);
      for (const worker of this.#counts.keys()) worker.terminate();
    }
    this.#options.signal?.throwIfAborted();
    if (this.#failure) throw this.#failure;
    this.#options.progress?.(this.#sum());
    return { entries: this.#sum(), changed: this.#changed };
  }

  #add(): void {
    const worker = new Worker(workerUrl("drivers/host/ids/shift_worker.ts"), { type: "module" });
    this.#counts.set(worker, 0);
    this.#idle.push(worker);
    worker.onmessage = ({ data }: MessageEvent<ShiftAnswer>) => this.#heard(worker, data);
    worker.onerror = (event) => {
      event.preventDefault?.();
      this.#fail(worker, new Error(`Cannot change the owners of a tree: ${event.message}`));
    };
  }

  #heard(worker: Worker, answer: ShiftAnswer): void {
    if (answer.directory !== undefined) {
      this.#waiting.push(answer.directory);
    } else if (answer.subvolume !== undefined) {
      return this.#opened(answer.subvolume);
    } else if (answer.failure !== undefined) {
      return this.#fail(worker, new Error(answer.failure));
    } else if (answer.entries !== undefined) {
      this.#counts.set(worker, this.#counts.get(worker)! + answer.entries);
      this.#changed += answer.changed ?? 0;
      this.#options.progress?.(this.#sum());
    } else this.#idle.push(worker);
    this.#deal();
  }

  #fail(worker: Worker, error: Error): void {
    this.#failure ??= error;
    Atomics.store(this.#memory, stopWord, 1);
    this.#idle.push(worker);
    this.#deal();
  }

  /** Hands waiting directories to idle threads, and publishes how many are still idle. */
  #deal(first = false): void {
    const isStopped = Atomics.load(this.#memory, stopWord) === 1;
    while (this.#waiting.length > 0 && this.#idle.length > 0) {
      const directory = this.#waiting.shift()!;
      if (isStopped) {
        libc.close(directory);
        continue;
      }
      const request: ShiftRequest = {
        directory,
        from: this.#from,
        to: this.#to,
        isPart: !first,
        memory: this.#memory,
      };
      this.#idle.pop()!.postMessage(request);
    }
    Atomics.store(this.#memory, idleWord, this.#idle.length);
    if (this.#idle.length === this.#counts.size && this.#waiting.length === 0) this.#end.resolve();
  }

  #sum(): number {
    return [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }
}
