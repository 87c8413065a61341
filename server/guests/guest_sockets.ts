/** The sockets of the guest API: one for each running container, in a directory of its own that is mounted at /dev/lxd in the container. The socket
 * identifies the container. Everything here is bounded, since the clients are hostile. */

import { messageOf } from "../../api/errors.ts";
import { chmodSync, renameSync } from "node:fs";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import net from "node:net";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { getRequestListener } from "@hono/node-server";
import { WebSocketServer } from "ws";
import { peerCredentials } from "../../drivers/host/sockets/unix_peer.ts";
import { refusal } from "./guest_api.ts";
import { EventSinks } from "./event_sinks.ts";
import type { GuestEvent } from "./guest_events.ts";
import type { SocketDirectory } from "./socket_directory.ts";

/** Of one container, event streams included. */
const connectionsMax = 16;
/** Of all containers: each connection is a descriptor of the daemon. Beyond it a container gets no second connection. */
const connectionsOfAllMax = 512;
const headersMaxBytes = 8 << 10;
/** From the connection, or from the last answer, to the end of the next request; and for reading an answer. Bytes sent slowly do not extend it. */
const patienceMs = 30_000;

export interface GuestSocketsOptions {
  readonly directory: SocketDirectory;
  readonly answer: (name: string, request: Request) => Response | Promise<Response>;
  /** Host uid of a container's root. @returns undefined when it does not run. */
  readonly rootUid: (name: string) => number | undefined;
  /** Whether a container may listen to its events. */
  readonly mayListen: (name: string) => boolean;
  /** For tests. */
  readonly limits?: { readonly patienceMs?: number; readonly connectionsOfAll?: number };
}

interface Opened {
  readonly listener: net.Server;
  readonly connections: Set<net.Socket>;
}

interface Connection {
  readonly name: string;
  readonly refused?: Response;
  isBusy: boolean;
  timer: NodeJS.Timeout;
}

export class GuestSockets {
  readonly #options: GuestSocketsOptions;
  readonly #opened = new Map<string, Opened>();
  readonly #connections = new WeakMap<object, Connection>();
  readonly #http: http.Server;
  readonly #websockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: headersMaxBytes });
  readonly #sinks = new EventSinks();
  readonly #patienceMs: number;
  readonly #connectionsOfAllMax: number;
  #connectionsOfAll = 0;

  constructor(options: GuestSocketsOptions) {
    this.#options = options;
    this.#patienceMs = options.limits?.patienceMs ?? patienceMs;
    this.#connectionsOfAllMax = options.limits?.connectionsOfAll ?? connectionsOfAllMax;
    const listener = getRequestListener((request, env) => this.#fetch(request, env as { incoming: IncomingMessage }), {
      overrideGlobalObjects: false,
    });
    this.#http = http.createServer(
      { maxHeaderSize: headersMaxBytes },
      (request, response) => this.#serve(request, response, () => void listener(request, response)),
    );
    this.#http.on("clientError", (_error, socket) => socket.destroy());
    this.#http.on("upgrade", (request, socket, head) => this.#upgrade(request, socket, head));
  }

  /** The directory of a container's socket. */
  directory(name: string): string {
    return this.#options.directory.path(name);
  }

  /** Names of the existing directories, also those of an earlier daemon. */
  directories(): string[] {
    return this.#options.directory.names();
  }

  /** Listens for a container; if an earlier daemon did, in the same directory, which the container has mounted. */
  async open(name: string): Promise<void> {
    if (this.#opened.has(name)) return;
    const above = await this.#options.directory.make(name);
    // Made outside of any container's directory and then renamed: a privileged container may write to its own, and put a symbolic link there.
    const made = `${above}/.${this.#opened.size}-${process.hrtime.bigint()}`;
    const connections = new Set<net.Socket>();
    const listener = net.createServer((socket) => this.#accept(name, socket, connections));
    this.#opened.set(name, { listener, connections });
    try {
      await new Promise<void>((resolve, reject) => {
        listener.once("error", reject);
        listener.listen({ path: made }, resolve);
      });
      chmodSync(made, 0o666);
      renameSync(made, join(this.directory(name), "sock"));
    } catch (error) {
      await this.close(name);
      throw error;
    }
  }

  /** Closes the socket and its connections; keeps the directory for the next daemon. */
  async close(name: string): Promise<void> {
    const opened = this.#opened.get(name);
    if (!opened) return;
    this.#opened.delete(name);
    const closed = new Promise((resolve) => opened.listener.close(resolve));
    for (const socket of opened.connections) socket.destroy();
    await closed;
  }

  /** Closes the socket and its connections, and deletes the directory. */
  async delete(name: string): Promise<void> {
    await this.close(name);
    await this.#options.directory.delete(name);
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#opened.keys()].map((name) => this.close(name)));
    this.#http.close();
    await this.#options.directory.close();
  }

  /** Sends an event to the container's subscribers. */
  publish(name: string, event: GuestEvent): void {
    this.#sinks.publish(name, event);
  }

  #accept(name: string, socket: net.Socket, connections: Set<net.Socket>): void {
    socket.on("error", () => {}); // a client may close its connection at any time
    const isFull = this.#connectionsOfAll >= this.#connectionsOfAllMax && connections.size > 0;
    if (isFull || connections.size >= connectionsMax) return void socket.destroy();
    connections.add(socket);
    this.#connectionsOfAll++;
    const connection: Connection = {
      name,
      ...this.#access(name, socket),
      isBusy: false,
      timer: setTimeout(() => socket.destroy(), this.#patienceMs),
    };
    this.#connections.set(socket, connection);
    socket.on("close", () => {
      clearTimeout(connection.timer);
      connections.delete(socket);
      this.#connectionsOfAll--;
    });
    this.#http.emit("connection", socket);
  }

  #access(name: string, socket: net.Socket): { refused?: Response } {
    try {
      if (peerCredentials(socket).uid === this.#options.rootUid(name)) return {};
      return { refused: refusal(401, "Access denied for non-root user") };
    } catch (error) {
      return { refused: refusal(500, messageOf(error)) };
    }
  }

  #serve(request: IncomingMessage, response: ServerResponse, answer: () => void): void {
    const { socket } = request;
    const connection = this.#connections.get(socket);
    // A request before the last answer was read would make answers pile up in memory.
    if (!connection || connection.isBusy || socket.writableLength > 0) return void socket.destroy();
    connection.isBusy = true;
    connection.timer.refresh();
    const types = connection.refused ? undefined : eventTypes(request);
    if (types && this.#options.mayListen(connection.name)) return this.#stream(connection, types, socket);
    // No request of this API has a body to read.
    const hasBody = request.headers["transfer-encoding"] !== undefined || Number(request.headers["content-length"]) > 0;
    if (hasBody) response.setHeader("connection", "close");
    response.once("finish", () => {
      connection.isBusy = false;
      connection.timer.refresh();
      if (hasBody) socket.destroySoon();
    });
    answer();
  }

  #fetch(request: Request, { incoming }: { incoming: IncomingMessage }): Response | Promise<Response> {
    const connection = this.#connections.get(incoming.socket);
    if (!connection) return refusal(500, "internal error");
    if (connection.refused) return connection.refused.clone();
    // `#serve` has taken the permitted event streams already.
    if (eventTypes(incoming)) return refusal(403, "not authorized");
    return this.#options.answer(connection.name, request);
  }

  /** As LXD without an upgrade: lines of JSON until one side closes the connection. */
  #stream(connection: Connection, types: ReadonlySet<string>, socket: net.Socket): void {
    clearTimeout(connection.timer);
    socket.write(
      "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\r\n",
    );
    this.#sinks.add(connection.name, types, {
      send: (text) => socket.write(text),
      queuedBytes: () => socket.writableLength,
      destroy: () => socket.destroy(),
      onClose: (listener) => socket.once("close", listener),
    });
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const connection = this.#connections.get(socket);
    const types = eventTypes(request);
    const isAllowed = connection && !connection.refused && types && this.#options.mayListen(connection.name);
    if (!isAllowed) {
      const status = connection?.refused ? "401 Unauthorized" : types ? "403 Forbidden" : "404 Not Found";
      return void socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    }
    this.#websockets.handleUpgrade(request, socket, head, (websocket) => {
      clearTimeout(connection.timer);
      websocket.on("error", () => {});
      this.#sinks.add(connection.name, types, {
        send: (text) => websocket.send(text),
        ping: () => websocket.ping("keepalive"),
        queuedBytes: () => websocket.bufferedAmount,
        destroy: () => websocket.terminate(),
        onClose: (listener) => websocket.once("close", listener),
      });
    });
  }
}

/** @returns The types of events that a request asks for; undefined for another request. */
function eventTypes(request: IncomingMessage): ReadonlySet<string> | undefined {
  const [path, query] = (request.url ?? "/").split("?", 2);
  if (path !== "/1.0/events") return undefined;
  return new Set((new URLSearchParams(query).get("type") || "config,device").split(","));
}
