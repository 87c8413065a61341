/** The client's side of an exec session: the request, its websockets, its end. Knows nothing of terminals or file
 * descriptors, so that both the command line and the library can use it.
 *
 * The wire: each stream is a websocket of binary messages; an empty text message on it means end of data. The control
 * websocket carries JSON. The daemon kills the command when the control websocket closes. */
import type { Operation } from "../../api/types.ts";
import { type Client, url } from "../client/client.ts";
import { ApiError, ConnectionError } from "../client/errors.ts";
import { type Listener, type MessageSocket, openWebSocket } from "../client/websocket.ts";

export interface ExecRequest {
  command: string[];
  interactive: boolean;
  environment: Record<string, string>;
  /** Columns and rows of the terminal; 0 when there is none. */
  width: number;
  height: number;
  user: number;
  group: number;
  cwd: string;
  /** lido's own fields; left out of the request when not needed, since LXD does not know them. */
  extra?: Record<string, unknown>;
}

export type Stream = "stdout" | "stderr";
/** Consumes a piece of output; the stream is not read further until it has resolved. */
export type Sink = (chunk: Uint8Array) => Promise<void> | void;

export interface Sinks extends Record<Stream, Sink> {
  /** Called when all data of a stream was consumed; not when the connection was lost before its end. */
  readonly ended?: (stream: Stream) => void;
}

/** Input that may be buffered before `write` makes its caller wait, in bytes. */
const inputBufferedBytesMax = 4 * 1024 * 1024;
/** Output that may wait for a slow sink before the websocket is paused, in bytes. */
const outputBufferedBytesMax = 256 * 1024;

export interface ExecEnd {
  /** The command's exit status; undefined when the daemon reported none. */
  status: number | undefined;
  /** The daemon's message when the command could not be run. */
  error: string;
  /** The command continues: the client detached, or the daemon detached it. */
  detached: boolean;
}

export class ExecSession {
  readonly operation: Operation;
  /** Resolves when the command has ended and all of its output was consumed.
   * @throws {ConnectionError} If the connection was lost before. */
  readonly ended: Promise<ExecEnd>;
  #sockets = new Map<string, MessageSocket>();
  #control: MessageSocket | undefined;
  #controlWaiting: string[] | undefined = [];
  #inputEnded = false;
  #opened: Promise<void>;
  #id: string | undefined;

  /** @param operation The daemon's answer to the exec request.
   * @param sinks Consumers of the output; an interactive session has all of it on `stdout`. */
  constructor(client: Client, operation: Operation, sinks: Sinks) {
    this.operation = operation;
    this.#id = sessionId(operation);
    const fds = (operation.metadata?.fds ?? {}) as Record<string, string>;
    const lost: { reject(error: unknown): void } = { reject: () => {} };
    const failure = new Promise<never>((_, reject) => lost.reject = reject);
    failure.catch(() => {});
    // Requested at the start, so that the answer comes as soon as the command has ended.
    const finished = client.waitQuietly(operation);
    finished.catch(() => {});
    const outputs: Promise<void>[] = [];
    this.#opened = this.#open(client, fds, (fd) => {
      // An interactive session has no stream 1: the terminal's output comes on 0.
      const stream = fd === "2" ? "stderr" : fd === "1" || fd === "0" && fds["1"] === undefined ? "stdout" : undefined;
      if (stream === undefined) return new Output();
      const output = new Output(sinks[stream]);
      output.taken.then(
        () => output.isComplete && sinks.ended?.(stream),
        (error) => lost.reject(error),
      );
      outputs.push(output.taken);
      return output;
    });
    this.#opened.catch(() => {});
    this.ended = Promise.race([this.#finish(finished, outputs), failure]);
    this.ended.catch(() => {});
  }

  /** Starts a command.
   * @throws {ApiError} If the daemon refuses.
   * @throws {ConnectionError} If it cannot be reached. */
  static async start(
    client: Client,
    instance: string,
    request: ExecRequest,
    sinks: Sinks,
  ): Promise<ExecSession> {
    const { extra, ...body } = request;
    const envelope = await client.request("POST", url`/1.0/instances/${instance}/exec`, {
      ...body,
      "wait-for-websocket": true,
      "record-output": false,
      // The command may start while our websockets are still being connected.
      eager: true,
      ...extra,
    });
    return new ExecSession(client, envelope.metadata as Operation, sinks);
  }

  /** Attaches to a detachable session.
   * @throws {ApiError} If there is none. */
  static async attach(client: Client, id: string, sinks: Sinks): Promise<ExecSession> {
    const envelope = await client.request("POST", url`/1.0/exec-sessions/${id}/attach`);
    return new ExecSession(client, envelope.metadata as Operation, sinks);
  }

  /** Attaches to an instance's console, which has no exit code and takes no signal.
   * @throws {ApiError} If the instance does not run, or another client is attached. */
  static async console(
    client: Client,
    instance: string,
    request: { type: string; width: number; height: number },
    sinks: Record<Stream, Sink>,
  ): Promise<ExecSession> {
    const envelope = await client.request("POST", url`/1.0/instances/${instance}/console`, request);
    return new ExecSession(client, envelope.metadata as Operation, sinks);
  }

  get isInteractive(): boolean {
    return this.operation.metadata?.interactive === true;
  }

  /** The id to attach with; undefined when the session is not detachable, or the daemon has not sent it yet. */
  get id(): string | undefined {
    return this.#id;
  }

  async #open(client: Client, fds: Record<string, string>, listen: (fd: string) => Output): Promise<void> {
    const names = Object.keys(fds).sort((left) => left === "control" ? -1 : 1);
    await Promise.all(names.map(async (fd) => {
      const path = url`/1.0/operations/${this.operation.id}/websocket?secret=${fds[fd] ?? ""}`;
      const listener = listen(fd);
      const socket = await openWebSocket(client.endpoint, path, listener, (opening) => {
        listener.socket = opening;
        this.#sockets.set(fd, opening);
      });
      if (fd !== "control") return;
      this.#control = socket;
      for (const message of this.#controlWaiting ?? []) socket.send(message);
      this.#controlWaiting = undefined;
    }));
  }

  async #finish(finished: Promise<Operation>, outputs: Promise<void>[]): Promise<ExecEnd> {
    let end: ExecEnd;
    try {
      // When a websocket is refused because the operation failed, the operation's error says more.
      await Promise.race([this.#opened, finished.then(() => {})]).catch(async (error) => {
        const operation = await Promise.race([finished, after(1000)]);
        if (operation === undefined || operation.status_code === 200) throw error;
      });
      const operation = await finished;
      const status = operation.metadata?.return;
      this.#id = sessionId(operation) ?? this.#id;
      end = {
        status: typeof status === "number" ? status : undefined,
        error: operation.err,
        detached: operation.metadata?.detached === true,
      };
      if (operation.status_code === 401 && end.error === "") end.error = "The command was cancelled";
      if (end.error === "") await this.#opened;
    } catch (error) {
      this.close();
      if (error instanceof ApiError && error.status === 404) {
        throw new ConnectionError("Lost the command: the daemon no longer knows its operation");
      }
      throw error instanceof ConnectionError ? error.asLost() : error;
    }
    // A command that never ran has no output to wait for; its streams may not even have been connected.
    if (end.error === "" || end.status !== undefined) await Promise.all(outputs);
    this.close();
    return end;
  }

  /** Sends input; resolves when more may be sent and the chunk may be reused. */
  async write(chunk: Uint8Array): Promise<void> {
    if (!await this.#isOpen()) return;
    const socket = this.#sockets.get("0");
    if (socket === undefined || !socket.isOpen || this.#inputEnded) return;
    socket.send(chunk);
    while (socket.bufferedBytes > inputBufferedBytesMax && socket.isOpen) await after(1);
  }

  /** Tells the command, once, that there is no more input. */
  async endInput(): Promise<void> {
    if (!await this.#isOpen() || this.#inputEnded) return;
    this.#inputEnded = true;
    const socket = this.#sockets.get("0");
    if (socket?.isOpen) socket.send("");
  }

  /** A session that could not be opened takes no input; `ended` rejects with the reason. */
  async #isOpen(): Promise<boolean> {
    return await this.#opened.then(() => true, () => false);
  }

  #sendControl(message: object): void {
    const text = JSON.stringify(message);
    if (this.#controlWaiting !== undefined) this.#controlWaiting.push(text);
    else if (this.#control?.isOpen) this.#control.send(text);
  }

  /** Tells the command's terminal its size in columns and rows. */
  resize(width: number, height: number): void {
    this.#sendControl({ command: "window-resize", args: { width: String(width), height: String(height) } });
  }

  /** Sends the command a signal by number. */
  signal(signal: number): void {
    this.#sendControl({ command: "signal", signal });
  }

  /** Detaches from a detachable session; `ended` resolves when the daemon has confirmed. */
  detach(): void {
    this.#sendControl({ command: "detach" });
  }

  /** Closes the session. The daemon kills a command that still runs, unless it is detachable. */
  close(): void {
    for (const socket of this.#sockets.values()) socket.terminate();
  }
}

function sessionId({ metadata }: Operation): string | undefined {
  return typeof metadata?.session === "string" ? metadata.session : undefined;
}

function after(delayMs: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(resolve, delayMs, undefined));
}

/** Passes a websocket's binary messages to a sink, in order, and pauses the websocket while too many bytes are buffered. */
class Output implements Listener {
  socket: MessageSocket | undefined;
  /** Resolves at the end of the data, when the sink has consumed all; rejects with the sink's error. */
  readonly taken: Promise<void>;
  #settle: { resolve(): void; reject(error: unknown): void } = { resolve: () => {}, reject: () => {} };
  #sink: Sink | undefined;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #isEnded = false;
  #isBusy = false;
  #isComplete = false;

  /** @param sink Absent: the data is dropped. */
  constructor(sink?: Sink) {
    this.#sink = sink;
    this.taken = new Promise((resolve, reject) => this.#settle = { resolve, reject });
  }

  /** Whether the daemon has sent the end of the data. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  message(data: string | Uint8Array): void {
    if (this.#isEnded || this.#sink === undefined) return;
    if (typeof data === "string") {
      if (data === "") this.#isEnded = this.#isComplete = true;
    } else if (data.length > 0) {
      this.#waiting.push(data);
      this.#waitingBytes += data.length;
      if (this.#waitingBytes > outputBufferedBytesMax) this.socket?.pause();
    }
    void this.#pump();
  }

  close(): void {
    this.#isEnded = true;
    void this.#pump();
  }

  async #pump(): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      while (this.#waiting.length > 0) {
        const chunk = this.#waiting.length === 1 ? this.#waiting[0] as Uint8Array : Buffer.concat(this.#waiting);
        this.#waiting = [];
        this.#waitingBytes = 0;
        if (this.socket?.isPaused) this.socket.resume();
        await this.#sink?.(chunk);
      }
    } catch (error) {
      this.#settle.reject(error);
      return;
    }
    this.#isBusy = false;
    if (this.#isEnded) this.#settle.resolve();
  }
}
