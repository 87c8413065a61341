/** Websockets by `ws`, for runtimes other than Bun and for remote daemons. */
import { type RawData, WebSocket } from "ws";
import type { Endpoint } from "./endpoint.ts";
import { ConnectionError, reasonOf } from "./errors.ts";
import { refusalIn } from "./websocket_failure.ts";
import type { Listener, MessageSocket } from "./websocket.ts";

function connect(endpoint: Endpoint, path: string): WebSocket {
  if (endpoint.kind === "unix") {
    return new WebSocket(`ws+unix:${endpoint.socket}:${path}`, { perMessageDeflate: false });
  }
  const pinned = endpoint.serverCertificate;
  return new WebSocket(`${endpoint.url.replace(/^http/, "ws").replace(/\/$/, "")}${path}`, {
    perMessageDeflate: false,
    cert: endpoint.certificate,
    key: endpoint.key,
    // Trusted because it is pinned, not by its name.
    ...(pinned === undefined ? {} : { ca: pinned, checkServerIdentity: () => undefined as unknown as boolean }),
  });
}

/** As `openWebSocket`. */
export function openByWs(
  endpoint: Endpoint,
  path: string,
  listener: Listener,
  opening: (socket: MessageSocket) => void,
): Promise<MessageSocket> {
  const raw = connect(endpoint, path);
  raw.binaryType = "nodebuffer";
  const socket: MessageSocket = {
    get isOpen() {
      return raw.readyState === WebSocket.OPEN;
    },
    get bufferedBytes() {
      return raw.bufferedAmount;
    },
    get isPaused() {
      return raw.isPaused;
    },
    send: (data) => raw.send(data),
    pause: () => raw.pause(),
    resume: () => raw.resume(),
    terminate: () => raw.terminate(),
  };
  raw.on("message", (data: RawData, isBinary) => {
    listener.message?.(isBinary ? data as Uint8Array : data.toString());
  });
  opening(socket);
  return new Promise((resolve, reject) => {
    raw.once("open", () => resolve(socket));
    raw.once("unexpected-response", (_request, reply) => {
      void refusalIn(reply).then(reject, reject).finally(() => raw.terminate());
    });
    raw.on("error", (error) => {
      reject(new ConnectionError(`Cannot open a websocket to the daemon: ${reasonOf(error)}`));
    });
    raw.once("close", () => {
      reject(new ConnectionError("Cannot open a websocket to the daemon: it was closed"));
      listener.close?.();
    });
  });
}
