/** Websockets to the daemon. Bun's own WebSocket can use a unix socket, can be paused, and saves 17 ms of a start
 * over `ws` (measured with the four that exec needs); everything else uses `ws`. */
import type { Endpoint } from "./endpoint.ts";
import { ConnectionError } from "./errors.ts";

export interface MessageSocket {
  readonly isOpen: boolean;
  /** Bytes given to `send` and not sent yet. */
  readonly bufferedBytes: number;
  readonly isPaused: boolean;
  /** Sends a string as a text message, bytes as a binary one. The bytes are copied or sent before it returns. */
  send(data: string | Uint8Array): void;
  pause(): void;
  resume(): void;
  /** Closes at once, without a closing handshake. */
  terminate(): void;
}

export interface Listener {
  message?(data: string | Uint8Array): void;
  /** Called once, also when the socket was never opened. */
  close?(): void;
}

/** Bun's additions to the standard WebSocket. */
interface BunWebSocket extends Omit<WebSocket, "binaryType"> {
  binaryType: "nodebuffer";
  readonly isPaused: boolean;
  pause(): void;
  resume(): void;
  terminate(): void;
}

/** Opens a websocket. The listener is in place before the connection is made: a message may come with the handshake.
 * @param opening Called with the socket at once, so that the caller can close it before it is open.
 * @throws {ApiError} If it is refused. @throws {ConnectionError} If the daemon cannot be reached. */
export async function openWebSocket(
  endpoint: Endpoint,
  path: string,
  listener: Listener,
  opening: (socket: MessageSocket) => void = () => {},
): Promise<MessageSocket> {
  if (endpoint.kind === "unix" && process.versions.bun !== undefined) {
    return await openNative(endpoint.socket, path, listener, opening);
  }
  return await (await import("./websocket_ws.ts")).openByWs(endpoint, path, listener, opening);
}

function openNative(
  socketPath: string,
  path: string,
  listener: Listener,
  opening: (socket: MessageSocket) => void,
): Promise<MessageSocket> {
  const native = new WebSocket(`ws+unix://${socketPath}:${path}`) as unknown as BunWebSocket;
  native.binaryType = "nodebuffer";
  const socket: MessageSocket = {
    get isOpen() {
      return native.readyState === 1;
    },
    get bufferedBytes() {
      return native.bufferedAmount;
    },
    get isPaused() {
      return native.isPaused;
    },
    send: (data) => native.send(data as string),
    pause: () => native.pause(),
    resume: () => native.resume(),
    terminate: () => native.terminate(),
  };
  native.onmessage = (event) => listener.message?.(event.data as string | Uint8Array);
  opening(socket);
  return new Promise((resolve, reject) => {
    let hasFailed = false;
    native.onopen = () => resolve(socket);
    native.onerror = (event) => {
      hasFailed = true;
      // Bun's message begins with the address, which contains the secret; of the daemon's answer it has only the status.
      const message = (event as unknown as { message?: string }).message?.split(" failed: ").at(-1) ?? "it was refused";
      void import("./websocket_failure.ts").then(({ explain }) => explain(socketPath, path, message)).then(
        reject,
        reject,
      );
    };
    native.onclose = () => {
      if (!hasFailed) reject(new ConnectionError("Cannot open a websocket to the daemon: it was closed"));
      listener.close?.();
    };
  });
}
