import type { NestedAnswer, NestedRequest } from "./nested_messages.ts";
import { workerUrl } from "../ffi/worker_url.ts";

/** Adds to `target`, a writable snapshot of `source`, snapshots of the subvolumes nested in `source`: a snapshot has empty directories in their
 * places. Each is read-only if its source is. Processes may be changing `source`, but nothing in `target`.
 * @param options.readonly Whether `target` itself becomes read-only. */
export async function copyNested(source: string, target: string, options: { readonly: boolean }): Promise<void> {
  await ask({ kind: "copy", source, target, ...options });
}

/** Deletes the subvolumes nested in the one at `path`. @returns Their ids. */
export async function deleteNested(path: string): Promise<readonly bigint[]> {
  return (await ask({ kind: "delete", path })).ids ?? [];
}

/** Uses a thread per call, which few volumes need: a snapshot waits for the disk, and there may be thousands. */
async function ask(request: NestedRequest): Promise<NestedAnswer> {
  const worker = new Worker(workerUrl("drivers/host/btrfs/nested_worker.ts"), { type: "module" });
  try {
    const answer = await new Promise<NestedAnswer>((resolve) => {
      worker.onmessage = ({ data }: MessageEvent<NestedAnswer>) => resolve(data);
      worker.onerror = (event) => {
        event.preventDefault?.();
        resolve({ failure: event.message });
      };
      worker.postMessage(request);
    });
    if (answer.failure !== undefined) throw new Error(`Cannot ${request.kind} nested subvolumes: ${answer.failure}`);
    return answer;
  } finally {
    worker.terminate();
  }
}
