import type { HotPlugAnswer, HotPlugRequest } from "./hot_plug_messages.ts";
import { workerUrl } from "./worker_url.ts";

/** A hostile container can make a path that never resolves (a FUSE filesystem that does not answer). Then the thread is given up. */
const answerTimeoutMs = 10_000;

/** One thread that enters containers' mount namespaces, one request after the other; started with the first. */
export class HotPlugThread {
  #worker: Worker | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  /** @returns What became of it; `code` "ETIMEDOUT" when the thread was given up. */
  ask(request: HotPlugRequest): Promise<HotPlugAnswer> {
    const answer = this.#queue.then(() => this.#askNow(request));
    this.#queue = answer.catch(() => {});
    return answer;
  }

  close(): Promise<void> {
    this.#worker?.terminate();
    this.#worker = undefined;
    return Promise.resolve();
  }

  #askNow(request: HotPlugRequest): Promise<HotPlugAnswer> {
    const worker = this.#worker ??= new Worker(workerUrl("hot_plug_worker.ts", import.meta.url), { type: "module" });
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#worker = undefined;
        worker.terminate();
        resolve({ code: "ETIMEDOUT" });
      }, answerTimeoutMs);
      worker.onmessage = ({ data }: MessageEvent<HotPlugAnswer>) => {
        clearTimeout(timer);
        resolve(data);
      };
      worker.postMessage(request);
    });
  }
}
