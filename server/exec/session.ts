import { randomBytes } from "node:crypto";
import type { RawData, WebSocket } from "ws";
import { LidoError } from "../../api/errors.ts";
import { execControlSchema } from "../../api/types.ts";
import { sameSecret } from "../routes/route.ts";
import type { Command } from "./command.ts";
import { nowhere, SocketSink } from "./sinks.ts";
import type { Sink } from "./output.ts";

/** Within it every socket that the session needs must be there, as LXD's. */
const connectDeadlineMs = 5_000;
/** As LXD's, so that what stands between keeps the connection. Whether a client is alive is not asked by it: one whose reader stalls answers nothing
 * and must not lose its command; a dead process closes its sockets, a cut cable is the kernel's to notice. */
const pingEveryMs = 10_000;

type Stream = "0" | "1" | "2" | "control";

/** An exec session's websockets: one secret each, one connection each. */
export class Session {
  readonly #secrets = new Map<Stream, string>();
  readonly #sockets = new Map<Stream, WebSocket>();
  readonly #required: readonly Stream[];
  readonly #output: readonly Stream[];
  readonly #connected = Promise.withResolvers<void>();
  #command: Command | undefined;
  #isAbandoned = false;
  #isOver = false;

  constructor(isInteractive: boolean) {
    const names: Stream[] = isInteractive ? ["0", "control"] : ["0", "1", "2", "control"];
    for (const name of names) this.#secrets.set(name, randomBytes(32).toString("hex"));
    this.#required = isInteractive ? names : names.filter((name) => name !== "control");
    this.#output = isInteractive ? ["0"] : ["1", "2"];
  }

  /** Name → secret, for the operation's metadata. */
  get fds(): Record<string, string> {
    return Object.fromEntries(this.#secrets);
  }

  /** @returns What takes the client's connection. @throws {LidoError} forbidden for a wrong secret, bad_request for one that was used. */
  connect(secret: string): (socket: WebSocket) => void {
    let found: Stream | undefined;
    // All are compared, so that the time does not tell which came near.
    for (const [name, expected] of this.#secrets) if (sameSecret(secret, expected)) found = name;
    if (found === undefined) throw new LidoError("forbidden", "Invalid websocket secret");
    if (this.#isOver) throw new LidoError("bad_request", "The command has ended");
    if (this.#sockets.has(found)) throw new LidoError("bad_request", "Websocket number already connected");
    const name = found;
    return (socket) => this.#take(name, socket);
  }

  /** Waits for the client, runs the command and hands its output over.
   * @returns The exit code. @throws {LidoError} When the client does not come; {LaunchError} when the command cannot be started. */
  async run(launch: (stdout: Sink, stderr: Sink) => Promise<Command>): Promise<number> {
    const pings = setInterval(() => this.#sockets.forEach((socket) => socket.ping("keepalive")), pingEveryMs);
    const sinks = new Map<Stream, SocketSink>();
    try {
      await this.#allConnected();
      for (const name of this.#output) sinks.set(name, new SocketSink(this.#sockets.get(name)!));
      const [stdout, stderr = nowhere] = [...sinks.values()];
      const command = await launch(stdout!, stderr);
      this.#command = command;
      if (this.#isAbandoned) command.abandon();
      for (const [name, socket] of this.#sockets) this.#serve(name, socket, command);
      return await command.ended;
    } finally {
      this.#isOver = true;
      await Promise.all([...sinks.values()].map((sink) => sink.end()));
      clearInterval(pings);
      // Control first, as LXD: clients take its end for the session's.
      this.#sockets.get("control")?.close();
      for (const socket of this.#sockets.values()) {
        socket.resume();
        socket.close();
      }
    }
  }

  /** Ends the command, or the wait for its client. */
  abandon(): void {
    this.#isAbandoned = true;
    this.#connected.reject(new LidoError("bad_request", "The command was cancelled"));
    this.#command?.abandon();
  }

  async #allConnected(): Promise<void> {
    const late = setTimeout(
      () => this.#connected.reject(new LidoError("internal", "Timed out waiting for websockets to connect")),
      connectDeadlineMs,
    );
    try {
      await this.#connected.promise;
    } finally {
      clearTimeout(late);
    }
  }

  #take(name: Stream, socket: WebSocket): void {
    // Two upgrades with one secret may have been let in at the same moment.
    if (this.#sockets.has(name) || this.#isOver) return socket.close();
    this.#sockets.set(name, socket);
    socket.ping("keepalive");
    if (this.#command) return this.#serve(name, socket, this.#command); // a control that comes late
    socket.pause(); // until there is a command to give it to
    if (this.#required.every((one) => this.#sockets.has(one))) this.#connected.resolve();
  }

  #serve(name: Stream, socket: WebSocket, command: Command): void {
    if (name === "control") {
      socket.on("message", (data, isBinary) => {
        const reason = control(command, data, isBinary);
        if (reason !== undefined) socket.send(JSON.stringify({ error: reason }));
      });
    } else if (name === "0") {
      socket.on("message", (data, isBinary) => {
        if (!isBinary) return command.input.end();
        const room = command.input.write(data as Buffer);
        if (!room) return;
        socket.pause();
        void room.then(() => socket.resume());
      });
    }
    const gone = () => this.#gone(name, command);
    socket.on("close", gone);
    if (socket.readyState !== socket.OPEN) gone();
    socket.resume();
  }

  /** A client that let go of its control, or never had one and reads nothing any more, is gone: its command with it, as LXD. */
  #gone(name: Stream, command: Command): void {
    if (this.#isOver) return;
    const open = (one: Stream) => this.#sockets.get(one)?.readyState === WebSocketOpen;
    if (name === "control" || (!this.#sockets.has("control") && !this.#output.some(open))) command.abandon();
    else if (this.#output.includes(name)) command.closeOutput(this.#output.indexOf(name));
    else if (name === "0") command.input.end();
  }
}

const WebSocketOpen = 1;

/** Obeys a message of the control socket. @returns What is wrong with one that is not obeyed. */
function control(command: Command, data: RawData, isBinary: boolean): string | undefined {
  if (isBinary) return "Invalid control message: text is allowed";
  let value: unknown;
  try {
    value = JSON.parse(data.toString());
  } catch {
    return "Invalid control message: not JSON";
  }
  const result = execControlSchema.safeParse(value);
  if (!result.success) return "Invalid control message: window-resize or a signal from 1 to 64 is allowed";
  if (result.data.command === "signal") {
    command.signal(result.data.signal);
    return undefined;
  }
  const [width, height] = [Number(result.data.args.width), Number(result.data.args.height)];
  if (!isWindowSize(width) || !isWindowSize(height)) {
    return `Invalid window size ${width}x${height}: from 1 to 65535 is allowed`;
  }
  command.resize({ width, height });
  return undefined;
}

export function isWindowSize(value: number): boolean {
  return value >= 1 && value <= 65535;
}
