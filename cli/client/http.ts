/** HTTP by node:http(s): for runtimes other than Bun, for remote daemons, and for bodies that are streams. */
import * as http from "node:http";
import * as https from "node:https";
import type { Readable } from "node:stream";
import type { Endpoint } from "./endpoint.ts";
import { connectionError, type Reply, type Request } from "./transport.ts";

const agents = new WeakMap<Endpoint, http.Agent>();

function optionsFor(endpoint: Endpoint, request: Omit<Request, "body">): https.RequestOptions {
  const common = { method: request.method, path: request.path, headers: request.headers };
  let agent = agents.get(endpoint);
  if (endpoint.kind === "unix") {
    if (agent === undefined) agents.set(endpoint, agent = new http.Agent({ keepAlive: true }));
    return { ...common, socketPath: endpoint.socket, agent };
  }
  const url = new URL(endpoint.url);
  if (agent === undefined) {
    // The daemon's certificate is self-signed: it is trusted because it is pinned, not by its name.
    const pinned = endpoint.serverCertificate;
    const trust = pinned === undefined ? {} : { ca: pinned, checkServerIdentity: () => undefined };
    agents.set(
      endpoint,
      agent = new https.Agent({ keepAlive: true, cert: endpoint.certificate, key: endpoint.key, ...trust }),
    );
  }
  return { ...common, host: url.hostname, port: url.port || "8443", agent };
}

/** Sends a request whose body may be a stream, and resolves when the head of the reply has arrived.
 * @throws {ConnectionError} If the daemon cannot be reached or the connection is lost. @throws The body's own error, if reading the body fails. */
export async function requestStream(
  endpoint: Endpoint,
  request: Omit<Request, "body"> & { body?: string | Readable },
): Promise<http.IncomingMessage> {
  const open = endpoint.kind === "unix" ? http.request : https.request;
  let bodyError: unknown;
  try {
    return await new Promise<http.IncomingMessage>((resolve, reject) => {
      const outgoing = open(optionsFor(endpoint, request));
      let replied = false;
      outgoing.once("response", (reply) => {
        replied = true;
        resolve(reply);
      });
      // A daemon that refuses a body early answers and closes: its answer counts, not the broken pipe that follows.
      outgoing.on("error", (error) => replied || reject(error));
      const { body } = request;
      if (body === undefined || typeof body === "string") {
        outgoing.end(body);
      } else {
        body.once("error", (error) => {
          bodyError = error;
          outgoing.destroy(error);
        });
        body.pipe(outgoing);
      }
    });
  } catch (error) {
    throw bodyError ?? await connectionError(endpoint, error);
  }
}

/** As `requestStream`, with the whole reply as text. */
export async function requestText(
  endpoint: Endpoint,
  request: Omit<Request, "body"> & { body?: string | Readable },
): Promise<Reply> {
  const reply = await requestStream(endpoint, request);
  const chunks: Uint8Array[] = [];
  try {
    for await (const chunk of reply) chunks.push(chunk as Uint8Array);
  } catch (error) {
    throw await connectionError(endpoint, error);
  }
  return {
    status: reply.statusCode ?? 0,
    header: (name) => {
      const value = reply.headers[name];
      return Array.isArray(value) ? value[0] : value;
    },
    text: Buffer.concat(chunks).toString("utf8"),
  };
}

/** Closes idle kept-alive connections, which would keep the process alive. */
export function closeConnections(endpoint: Endpoint): void {
  agents.get(endpoint)?.destroy();
}
