import type { ServerResponse } from "node:http";
import { Readable } from "node:stream";
import type { Context as HonoContext } from "hono";
import { limitDownload } from "../http/stall.ts";

/** An answer whose body comes from a stream. When the stream fails, the connection is closed before the body's end: the client can learn of it only
 * so, as the headers were sent. The log gives the reason, in one line of the request (`logged`).
 * @param source Destroyed when the client reads nothing for too long, or disconnects.
 * @param options.isOperations Whether an operation makes it, which logs its failure itself. */
export function download(
  c: HonoContext,
  source: Readable,
  headers: Readonly<Record<string, string>>,
  options: { isOperations?: boolean } = {},
): Response {
  const limited = limitDownload(source), body = limited[Symbol.asyncIterator]();
  const outgoing = (c.env as { outgoing?: ServerResponse } | undefined)?.outgoing;
  let isCancelled = false;
  const cancel = () => {
    isCancelled = true;
    limited.destroy();
  };
  // If the client disconnects before its answer begins, the stream is not cancelled: listen for it here.
  outgoing?.once("close", cancel);
  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await body.next();
        // The client has disconnected meanwhile: the controller accepts nothing more, not even an end.
        if (isCancelled) return;
        if (done) controller.close();
        else controller.enqueue(value as Uint8Array);
      } catch (error) {
        if (isCancelled) return;
        if (!options.isOperations) c.get("bodyFailed")?.(error);
        if (!outgoing) return controller.error(error);
        // Not by `controller.error`: the listener would print the error.
        outgoing.destroy();
        controller.close();
      }
    },
    cancel,
  }, { highWaterMark: 0 });
  return new Response(stream, { headers });
}
