import { chmodSync, chownSync, rmSync } from "node:fs";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import net from "node:net";
import type { Duplex } from "node:stream";
import tls from "node:tls";
import { getRequestListener } from "@hono/node-server";
import type { Logger } from "pino";
import { type WebSocket, WebSocketServer } from "ws";
import { LidoError, messageOf } from "../../api/errors.ts";
import type { KeyPair } from "../credentials/certificate.ts";
import { type Address, showAddress } from "./address.ts";
import { describeFailure } from "../log/failure.ts";
import { describeError } from "./errors.ts";
import type { HeaderOf } from "./origin.ts";
import { type Peer, peerOf, setPeer } from "./peers.ts";
import { Strangers } from "./strangers.ts";

/** Answers an upgrade: returns a function that serves the socket, or throws the error that the client gets instead. */
export type UpgradeHandler = (url: URL, peer: Peer, header: HeaderOf) => (socket: WebSocket) => void;

export interface ServerOptions {
  /** @param env Has the request as it came, for `peerOfRequest`. */
  readonly fetch: (request: Request, env: object) => Response | Promise<Response>;
  readonly upgrade: UpgradeHandler;
  /** Whether a client may do everything. Other clients have deadlines and a limited number of connections; a trusted client's upload has no
   * time limit but must keep moving. */
  readonly isTrusted: (peer: Peer) => boolean;
  readonly log: Logger;
}

/** How long a client may take to read its last bytes when the daemon ends. */
const lastBytesMs = 1_000;
const websocketMessageMaxBytes = 1 << 20;
/** After this silence the kernel probes a TCP peer, once a second and ten times. */
const keepAliveMs = 4_000;

/** HTTP and websockets on a unix socket and over mutual TLS: node:net and node:tls accept, node:http and `ws` talk, Hono answers. */
export class HttpServer {
  readonly #options: ServerOptions;
  readonly #http: http.Server;
  readonly #websockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: websocketMessageMaxBytes,
  });
  readonly #listeners = new Set<net.Server>();
  #https:
    | { readonly listener: net.Server; readonly where: Address; readonly address: string; readonly certificate: string }
    | undefined;
  readonly #connections = new Set<net.Socket>();
  readonly #strangers: Strangers;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#strangers = new Strangers({
      onLimit: (address, limit) => options.log.warn({ address, limit }, "too many connections without trust"),
    });
    const answer = getRequestListener((request, env) => options.fetch(request, env), { overrideGlobalObjects: false });
    this.#http = http.createServer((request, response) => {
      if (this.#limitRequest(request, response)) return answer(request, response);
      request.socket.destroy();
    });
    // Node's own time limits are off: Bun ignores them, and an upload may take hours.
    this.#http.headersTimeout = this.#http.requestTimeout = 0;
    this.#http.on("clientError", (_error, socket) => {
      if (socket.writable) socket.write("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
      this.#end(socket as net.Socket);
    });
    this.#http.on("upgrade", (request, socket, head) => this.#upgrade(request, socket, head));
  }

  /** @param group Whose members may connect; root's when absent. */
  async listenUnix(path: string, group: number | undefined): Promise<void> {
    rmSync(path, { force: true }); // the caller holds the directory's lock: no other daemon listens
    const listener = net.createServer((socket) => this.#take(socket, { kind: "local" }));
    await listening(listener, { path });
    chownSync(path, 0, group ?? 0);
    chmodSync(path, 0o660);
    this.#listeners.add(listener);
  }

  /** The address on which it listens for TLS, and its certificate. */
  get https(): { readonly address: string; readonly certificate: string } | undefined {
    return this.#https;
  }

  /** Listens for TLS on this address only; existing connections go on.
   * @param address Absent: stops listening. @throws {LidoError} bad_request when it cannot listen; the previous listener stays. */
  async listenTls(address?: Address, keyPair?: KeyPair): Promise<void> {
    const previous = this.#https;
    if (address && keyPair) {
      if (previous?.address === showAddress(address)) return;
      const listener = tls.createServer({
        key: keyPair.key,
        cert: keyPair.certificate,
        minVersion: "TLSv1.2",
        requestCert: true,
        rejectUnauthorized: false, // a certificate is trusted by its fingerprint, not by its issuer
      }, (socket) => {
        socket.setKeepAlive(true, keepAliveMs);
        const certificate = socket.getPeerCertificate()?.raw as Uint8Array | undefined;
        const address = socket.remoteAddress;
        this.#take(socket, { kind: "tls", ...(certificate ? { certificate } : {}), ...(address ? { address } : {}) });
      });
      // Emitted before the handshake. Bun has the same socket in this event and in the above.
      listener.on("connection", (socket) => {
        socket.on("error", () => {});
        this.#strangers.admit(socket, "handshake");
      });
      listener.on("tlsClientError", (error) => this.#options.log.debug({ error: messageOf(error) }, "no TLS"));
      // Listening on one address and on all addresses of the same port excludes each other: close the old listener first.
      const samePort = previous?.where.port === address.port ? previous : undefined;
      samePort?.listener.close();
      try {
        await listening(listener, address);
      } catch (error) {
        if (samePort) await listening(samePort.listener, samePort.where);
        throw new LidoError("bad_request", `Cannot listen on "${showAddress(address)}": ${messageOf(error)}`);
      }
      this.#listeners.add(listener);
      this.#https = { listener, where: address, address: showAddress(address), certificate: keyPair.certificate };
    } else {
      this.#https = undefined;
    }
    if (!previous) return;
    this.#listeners.delete(previous.listener);
    if (previous.listener.listening) previous.listener.close();
  }

  #take(socket: net.Socket, peer: Peer): void {
    setPeer(socket, peer);
    if (peer.kind === "local" || this.#options.isTrusted(peer)) this.#strangers.release(socket);
    else this.#strangers.expect(socket, "header");
    this.#connections.add(socket);
    socket.on("close", () => this.#connections.delete(socket));
    socket.on("error", () => {}); // a client may close its connection at any time
    this.#http.emit("connection", socket);
  }

  /** Limits an untrusted client to one request a connection: so no connection is idle, and no body stays unread.
   * @returns Whether the request may be answered. */
  #limitRequest(request: IncomingMessage, response: ServerResponse): boolean {
    const { socket } = request;
    // The parser may hold several requests of one packet: refuse all after the first.
    if (this.#strangers.isPast(socket, "header")) return false;
    const peer = peerOf(socket);
    if (peer.kind === "local" || this.#options.isTrusted(peer)) return true;
    if (this.#strangers.has(socket)) this.#strangers.expect(socket, "body");
    else this.#strangers.admit(socket, "body"); // its certificate is no longer trusted
    response.setHeader("Connection", "close");
    request.once("end", () => this.#strangers.expect(socket, "answer"));
    response.once("close", () => this.#end(socket));
    return true;
  }

  /** Sends what is queued; the client has a short deadline to read it. */
  #end(socket: net.Socket): void {
    this.#strangers.expect(socket, "end");
    socket.destroySoon();
  }

  /** Accepts no more connections and ends the existing ones. */
  async close(): Promise<void> {
    // A listener is closed when its last connection is: end the connections before waiting for it.
    const closed = [...this.#listeners].map((listener) => new Promise((resolve) => listener.close(resolve)));
    this.#strangers.close();
    for (const socket of this.#websockets.clients) socket.close(1001);
    for (const socket of this.#connections) socket.destroySoon();
    this.#http.close();
    const slow = setTimeout(() => this.#connections.forEach((socket) => socket.destroy()), lastBytesMs);
    await Promise.all(closed);
    clearTimeout(slow);
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    let accept: (socket: WebSocket) => void;
    const url = new URL(request.url ?? "/", "http://lido");
    try {
      accept = this.#options.upgrade(url, peerOf(socket), (name) => request.headers[name]?.toString());
    } catch (error) {
      // Only the path is logged: the query has a secret.
      this.#options.log.info({ path: url.pathname, ...describeFailure(error) }, "websocket refused");
      refuse(socket, error);
      return this.#end(socket as net.Socket);
    }
    this.#websockets.handleUpgrade(request, socket, head, (websocket) => {
      this.#strangers.release(socket as net.Socket); // the client had an operation's secret
      websocket.on("error", (error) => this.#options.log.debug({ error: messageOf(error) }, "a websocket failed"));
      accept(websocket);
    });
  }
}

function listening(listener: net.Server, where: net.ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    listener.once("error", reject);
    listener.listen(where, resolve);
  });
}

/** Refuses an upgrade with an HTTP answer, like every other error. */
function refuse(socket: Duplex, error: unknown): void {
  const { status, text } = describeError(error);
  const body = JSON.stringify({ type: "error", error: text, error_code: status }) + "\n";
  socket.write(
    `HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
