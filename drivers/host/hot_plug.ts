import type { HotPlugAnswer, HotPlugRequest } from "./hot_plug_worker.ts";
import { workerUrl } from "./worker_url.ts";

export type HotPlugFailure = { readonly code: string };
type AttachRequest = Omit<Extract<HotPlugRequest, { kind: "attach" }>, "kind">;
type DetachRequest = Omit<Extract<HotPlugRequest, { kind: "detach" }>, "kind">;

/** A hostile container can make a path that never resolves (a FUSE filesystem that does not answer). Then the thread is given up. */
const answerTimeoutMs = 10_000;

/** One thread that enters containers' mount namespaces, one request after the other; started with the first. */
export class HotPlugThread {
  #worker: Worker | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  attach(request: AttachRequest): Promise<HotPlugFailure | undefined> {
    return this.#ask({ kind: "attach", ...request });
  }

  detach(request: DetachRequest): Promise<HotPlugFailure | undefined> {
    return this.#ask({ kind: "detach", ...request });
  }

  close(): Promise<void> {
    this.#worker?.terminate();
    this.#worker = undefined;
    return Promise.resolve();
  }

  #ask(request: HotPlugRequest): Promise<HotPlugFailure | undefined> {
    const answer = this.#queue.then(() => this.#askNow(request));
    this.#queue = answer.catch(() => {});
    return answer;
  }

  #askNow(request: HotPlugRequest): Promise<HotPlugFailure | undefined> {
    const worker = this.#worker ??= new Worker(workerUrl("hot_plug_worker.ts", import.meta.url), { type: "module" });
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#worker = undefined;
        worker.terminate();
        resolve({ code: "ETIMEDOUT" });
      }, answerTimeoutMs);
      worker.onmessage = ({ data }: MessageEvent<HotPlugAnswer>) => {
        clearTimeout(timer);
        resolve(data.code === undefined ? undefined : { code: data.code });
      };
      worker.postMessage(request);
    });
  }
}
