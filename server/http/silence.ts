import { Socket } from "node:net";
import type { WebSocket } from "ws";
import * as tcp from "../../drivers/host/sockets/tcp.ts";

/** Ends a connection over TCP whose peer does not acknowledge what is sent to it. Others have no silence: a dead process closes its unix socket. */
export function limitSilence(websocket: WebSocket, timeoutMs: number): void {
  const { _socket: socket } = websocket as unknown as { _socket?: unknown };
  if (socket instanceof Socket && socket.remoteAddress !== undefined) tcp.limitSilence(socket, timeoutMs);
}
