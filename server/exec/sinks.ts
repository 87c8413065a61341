import type { FileHandle } from "node:fs/promises";
import type { WebSocket } from "ws";
import type { Sink } from "./output.ts";

/** A reader that lags this far behind stops the command's writes. */
const queuedBytesMax = 256 * 1024;

/** Output as binary messages; an empty text message is its end, as LXD's. */
export class SocketSink implements Sink {
  readonly #coming = Promise.withResolvers<void>();
  #socket: WebSocket | undefined;
  #room: (() => void) | undefined;

  /** Sets the client's socket; output written before is sent to it now. */
  connect(socket: WebSocket): void {
    this.#socket = socket;
    socket.once("close", () => this.#room?.());
    this.#coming.resolve();
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    const socket = this.#socket;
    if (!socket) return this.#coming.promise.then(() => this.write(chunk));
    if (socket.readyState !== socket.OPEN) return undefined;
    socket.send(chunk, { binary: true }, () => this.#room?.());
    if (socket.bufferedAmount <= queuedBytesMax) return undefined;
    return this.#until(socket, () => socket.bufferedAmount <= queuedBytesMax);
  }

  /** Resolves when all output was sent, or the client has disconnected: closing the socket before could lose the last bytes.
   * @returns Whether the client is still connected. */
  async end(): Promise<boolean> {
    const socket = this.#socket;
    if (!socket || socket.readyState !== socket.OPEN) return false;
    socket.send("", { binary: false }, () => this.#room?.());
    await this.#until(socket, () => socket.bufferedAmount === 0);
    return socket.readyState === socket.OPEN;
  }

  #until(socket: WebSocket, isEnough: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#room = () => {
        if (socket.readyState === socket.OPEN && !isEnough()) return;
        this.#room = undefined;
        resolve();
      };
      this.#room();
    });
  }
}

export class FileSink implements Sink {
  readonly #file: FileHandle;
  /** The first failure, most likely a full disk; output after it is dropped. */
  error: unknown;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  async write(chunk: Uint8Array): Promise<void> {
    if (this.error !== undefined) return;
    try {
      await this.#file.writeFile(chunk);
    } catch (error) {
      this.error = error;
    }
  }
}

export const nowhere: Sink = { write: () => undefined };
