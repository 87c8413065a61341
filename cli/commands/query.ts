import type { Operation } from "../../api/types.ts";
import { openEnvelope } from "../client/client.ts";
import { UsageError } from "../client/errors.ts";
import { verb } from "../verb.ts";

const methods = ["GET", "POST", "PUT", "PATCH", "DELETE"];

export const verbs = [verb({
  words: "query",
  args: ["path"],
  flags: {
    request: {
      short: "X",
      value: "method",
      values: methods,
      initial: "GET",
      summary: "Method of the request",
    },
    data: { short: "d", value: "json", summary: "Body of the request" },
    wait: { summary: "Wait for the operation to end" },
    raw: { summary: "Print the reply as it came" },
  },
  summary: "Send a raw query to the daemon",
  async run(io, [path = ""], flags) {
    if (!methods.includes(flags.request)) {
      throw new UsageError(`Invalid method "${flags.request}": ${methods.join(", ")} are allowed`);
    }
    if (!path.startsWith("/")) throw new UsageError("Query path must start with /");
    if (flags.data !== undefined) {
      try {
        JSON.parse(flags.data);
      } catch (error) {
        throw new UsageError(`The data is not valid JSON: ${(error as Error).message}`);
      }
    }
    const headers: Record<string, string> = flags.data === undefined ? {} : { "Content-Type": "application/json" };
    const reply = await io.client.transport({ method: flags.request, path, headers, body: flags.data });
    if (flags.raw) {
      io.out(reply.text.endsWith("\n") ? reply.text : `${reply.text}\n`);
      return reply.status >= 400 ? 1 : 0;
    }
    if (reply.header("content-type")?.startsWith("application/json") === false) {
      io.out(reply.text);
      return;
    }
    const envelope = openEnvelope(reply);
    let shown = envelope.metadata;
    if (flags.wait && envelope.type === "async") shown = await io.client.waitFor(envelope.metadata as Operation);
    if (shown === null || shown === undefined || JSON.stringify(shown) === "{}") return;
    io.out(`${JSON.stringify(shown, null, "\t")}\n`);
  },
})];
