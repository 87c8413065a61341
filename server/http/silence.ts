import { Socket } from "node:net";
import type { WebSocket } from "ws";
import * as tcp from "../../drivers/host/sockets/tcp.ts";

/** Ends a TCP connection whose peer does not acknowledge what is sent to it. A unix socket needs no limit: a dead process closes it. */
export function limitSilence(websocket: WebSocket, timeoutMs: number): void {
  const { _socket: socket } = websocket as unknown as { _socket?: unknown };
  if (socket instanceof Socket && socket.remoteAddress !== undefined) tcp.limitSilence(socket, timeoutMs);
}
