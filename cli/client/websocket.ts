/** Websockets to the daemon by `ws` (on Bun that name is its native client). Loaded only by verbs that need one. */
import { WebSocket } from "ws";
import type { Endpoint } from "./endpoint.ts";
import { ConnectionError, reasonOf } from "./errors.ts";

/** Opens a websocket.
 * @param prepare Called before the connection is made: what arrives together with the handshake must find its listener.
 * @throws {ConnectionError} If it is refused or the daemon is not there. */
export function openWebSocket(endpoint: Endpoint, path: string, prepare: (socket: WebSocket) => void): Promise<WebSocket> {
  const socket = endpoint.kind === "unix"
    ? new WebSocket(`ws+unix:${endpoint.socket}:${path}`, { perMessageDeflate: false })
    : new WebSocket(`${endpoint.url.replace(/^http/, "ws")}${path}`, {
      perMessageDeflate: false,
      cert: endpoint.certificate,
      key: endpoint.key,
      ...(endpoint.serverCertificate === undefined
        ? {}
        : { ca: endpoint.serverCertificate, checkServerIdentity: () => true }),
    });
  socket.binaryType = "nodebuffer";
  prepare(socket);
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => reject(new ConnectionError(`Cannot open a websocket: ${reasonOf(error)}`));
    socket.once("open", () => resolve(socket));
    socket.once("close", () => fail(new Error("closed by the daemon")));
    socket.on("error", fail);
  });
}
