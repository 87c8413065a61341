import type { ServerResponse } from "node:http";
import { Readable } from "node:stream";
import type { Context as HonoContext } from "hono";
import { limitDownload } from "../http/stall.ts";

/** An answer whose body comes from a stream. When the stream fails, the connection ends before the body does: that is how the client learns of it, for the
 * headers are on their way. The log says why, in one line of the request (`logged`).
 * @param source Is destroyed when the client takes nothing for too long, or goes away.
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
  // A client that leaves before its answer begins cancels nothing.
  outgoing?.once("close", cancel);
  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await body.next();
        // The client went away meanwhile: the controller takes nothing more, not even an end.
        if (isCancelled) return;
        if (done) controller.close();
        else controller.enqueue(value as Uint8Array);
      } catch (error) {
        if (isCancelled) return;
        if (!options.isOperations) c.get("bodyFailed")?.(error);
        if (!outgoing) return controller.error(error);
        // Not by the stream: the listener would print what it hears of.
        outgoing.destroy();
        controller.close();
      }
    },
    cancel,
  }, { highWaterMark: 0 });
  return new Response(stream, { headers });
}
