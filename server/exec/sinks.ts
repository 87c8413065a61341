import type { FileHandle } from "node:fs/promises";
import type { WebSocket } from "ws";
import type { Sink } from "./output.ts";

/** A reader that lags this far behind stops the command's writes. */
const queuedBytesMax = 256 * 1024;

/** Output as binary messages; an empty text message is its end, as LXD's. */
export class SocketSink implements Sink {
  readonly #socket: WebSocket;
  #room: (() => void) | undefined;

  constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.once("close", () => this.#room?.());
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#socket.readyState !== this.#socket.OPEN) return undefined;
    this.#socket.send(chunk, { binary: true }, () => this.#room?.());
    if (this.#socket.bufferedAmount <= queuedBytesMax) return undefined;
    return this.#until(() => this.#socket.bufferedAmount <= queuedBytesMax);
  }

  /** Resolves when the client's kernel has all of it, or the client is gone: a socket that is closed before may lose its last bytes. */
  async end(): Promise<void> {
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    this.#socket.send("", { binary: false }, () => this.#room?.());
    await this.#until(() => this.#socket.bufferedAmount === 0);
  }

  #until(isEnough: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#room = () => {
        if (this.#socket.readyState === this.#socket.OPEN && !isEnough()) return;
        this.#room = undefined;
        resolve();
      };
      this.#room();
    });
  }
}

export class FileSink implements Sink {
  readonly #file: FileHandle;
  /** The first failure, a full disk above all; what comes after is dropped. */
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
