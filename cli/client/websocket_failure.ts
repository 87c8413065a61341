/** Why a websocket could not be opened: the daemon's message, or the system's. */
import * as http from "node:http";
import { openEnvelope } from "./client.ts";
import { ConnectionError } from "./errors.ts";
import { connectionError } from "./transport.ts";

/** @param reply The daemon's answer instead of the upgrade. @returns The error in it. */
export async function refusalIn(reply: http.IncomingMessage): Promise<unknown> {
  const chunks: Uint8Array[] = [];
  try {
    for await (const chunk of reply) chunks.push(chunk as Uint8Array);
    openEnvelope({ status: reply.statusCode ?? 0, header: () => undefined, text: Buffer.concat(chunks).toString() });
  } catch (error) {
    return error;
  }
  return new ConnectionError("Cannot open a websocket to the daemon: it was refused");
}

/** Repeats the request to learn what Bun's WebSocket does not tell: the body of a refusal, or the system's reason.
 * @param message Bun's error text. */
export async function explain(socket: string, path: string, message: string): Promise<unknown> {
  if (!/status code/.test(message)) return await connectionError({ kind: "unix", socket }, new Error(message));
  const failure = (reason: string) => new ConnectionError(`Cannot open a websocket to the daemon: ${reason}`);
  return await new Promise((resolve) => {
    const request = http.request({ socketPath: socket, path, headers: upgrade });
    request.once("response", (reply) => resolve(refusalIn(reply)));
    request.once("upgrade", (_reply, taken) => {
      taken.destroy();
      resolve(failure("it was refused")); // only the first attempt was refused
    });
    request.once("error", (error) => resolve(failure(error.message)));
    request.end();
  });
}

const upgrade = {
  Connection: "Upgrade",
  Upgrade: "websocket",
  "Sec-WebSocket-Version": "13",
  "Sec-WebSocket-Key": Buffer.alloc(16).toString("base64"),
};
