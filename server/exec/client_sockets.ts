import { randomBytes } from "node:crypto";
import type { WebSocket } from "ws";
import { LidoError } from "../../api/errors.ts";
import { limitSilence } from "../http/silence.ts";
import { sameSecret } from "../credentials/secret.ts";
import { SocketSink } from "./sinks.ts";

/** Every socket that the session needs must be connected within this time, as LXD's. */
const connectDeadlineMs = 5_000;
/** As LXD's, so that proxies keep the connection. A missing pong does not end the session: a client whose reader stalls answers nothing and must not
 * lose its command; a dead process closes its sockets, and the kernel notices a broken connection (keepalive, http/server.ts). */
const pingEveryMs = 10_000;
/** A client must acknowledge the little that is sent on its control socket; one that does not is taken for dead.
 * With the pings, that is known within 20 s. */
const silenceMaxMs = 8_000;
const open = 1;

export type Stream = "0" | "1" | "2" | "control";

/** Receives the sockets' messages and their ends. */
export interface ClientListener {
  /** @returns A promise if no more input may be passed before it resolves. */
  input(chunk: Uint8Array): Promise<void> | undefined;
  endInput(): void;
  /** @returns The reason why a message is refused. */
  control(data: string | undefined): string | undefined;
  gone(stream: Stream): void;
}

/** One client's websockets: one secret each, one connection each. */
export class ClientSockets {
  /** The streams that take output: stdout and stderr, or the terminal. */
  readonly outputs: readonly Stream[];
  readonly #secrets = new Map<Stream, string>();
  readonly #sockets = new Map<Stream, WebSocket>();
  readonly #sinks = new Map<Stream, SocketSink>();
  readonly #required: readonly Stream[];
  readonly #connected = Promise.withResolvers<void>();
  #listener: ClientListener | undefined;
  #isOver = false;

  constructor(isInteractive: boolean) {
    const names: Stream[] = isInteractive ? ["0", "control"] : ["0", "1", "2", "control"];
    for (const name of names) this.#secrets.set(name, randomBytes(32).toString("hex"));
    this.#required = isInteractive ? names : names.filter((name) => name !== "control");
    this.outputs = isInteractive ? ["0"] : ["1", "2"];
    for (const name of this.outputs) this.#sinks.set(name, new SocketSink());
    this.#connected.promise.catch(() => {});
  }

  /** Name → secret, for the operation's metadata. */
  get fds(): Record<string, string> {
    return Object.fromEntries(this.#secrets);
  }

  /** The sink of a stream's output; what is written before the client is connected waits for it. */
  sink(stream: Stream): SocketSink {
    return this.#sinks.get(stream)!;
  }

  isOpen(stream: Stream): boolean {
    return this.#sockets.get(stream)?.readyState === open;
  }

  /** @returns A function that takes the client's connection. @throws {LidoError} forbidden for a wrong secret, bad_request for a used one. */
  connect(secret: string): (socket: WebSocket) => void {
    let found: Stream | undefined;
    // All secrets are compared, so that the time does not reveal which one was close.
    for (const [name, expected] of this.#secrets) if (sameSecret(secret, expected)) found = name;
    if (found === undefined) throw new LidoError("forbidden", "Invalid websocket secret");
    if (this.#isOver) throw new LidoError("bad_request", "The command has ended");
    if (this.#sockets.has(found)) throw new LidoError("bad_request", "Websocket number already connected");
    const name = found;
    return (socket) => this.#take(name, socket);
  }

  /** Waits for the client. @throws {LidoError} When it does not connect in time, or `cancel` was called. */
  async connected(): Promise<void> {
    const late = setTimeout(
      () => this.#connected.reject(new LidoError("bad_request", "Timed out waiting for websockets to connect")),
      connectDeadlineMs,
    );
    try {
      await this.#connected.promise;
    } finally {
      clearTimeout(late);
    }
  }

  /** Ends the wait for the client. */
  cancel(reason: Error): void {
    this.#connected.reject(reason);
  }

  /** Passes all messages to the listener from now on. */
  serve(listener: ClientListener): void {
    this.#listener = listener;
    for (const [name, socket] of this.#sockets) this.#listen(name, socket, listener);
  }

  /** Closes the sockets when the client has received all output. @returns Whether it has. */
  async end(): Promise<boolean> {
    this.#isOver = true;
    const has = await Promise.all([...this.#sinks.values()].map((sink) => sink.end()));
    // Control first, as LXD: for clients its end is the session's.
    this.#sockets.get("control")?.close();
    for (const socket of this.#sockets.values()) {
      socket.resume();
      socket.close();
    }
    return has.every(Boolean);
  }

  #take(name: Stream, socket: WebSocket): void {
    // Two upgrades with the same secret may have been admitted at the same time.
    if (this.#sockets.has(name) || this.#isOver) return socket.close();
    this.#sockets.set(name, socket);
    const ping = () => socket.ping("keepalive");
    const pings = setInterval(ping, pingEveryMs);
    socket.once("close", () => clearInterval(pings));
    ping();
    this.#sinks.get(name)?.connect(socket);
    if (name === "control") limitSilence(socket, silenceMaxMs);
    if (this.#listener) this.#listen(name, socket, this.#listener); // a control socket that connects late
    else socket.pause(); // until there is a listener
    if (this.#required.every((one) => this.#sockets.has(one))) this.#connected.resolve();
  }

  #listen(name: Stream, socket: WebSocket, listener: ClientListener): void {
    if (name === "control") {
      socket.on("message", (data, isBinary) => {
        const reason = listener.control(isBinary ? undefined : data.toString());
        if (reason !== undefined) socket.send(JSON.stringify({ error: reason }));
      });
    } else if (name === "0") {
      socket.on("message", (data, isBinary) => {
        if (!isBinary) return listener.endInput();
        const room = listener.input(data as Buffer);
        if (!room) return;
        socket.pause();
        void room.then(() => socket.resume());
      });
    }
    const gone = () => this.#isOver || listener.gone(name);
    socket.on("close", gone);
    if (socket.readyState !== open) gone();
    socket.resume();
  }
}
