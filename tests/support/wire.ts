/** Connections of a client that breaks any rule: bytes are sent as they are, and the response is hardly parsed. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import * as tls from "node:tls";
import { slowness } from "./slowness.ts";

export interface Endpoint {
  readonly socketPath?: string;
  readonly port?: number;
  /** Client certificate; absent: none. */
  readonly identity?: { readonly cert: string; readonly key: string };
}

export interface Reply {
  /** 0 if the connection ended without a response. */
  readonly status: number;
  /** The whole response with its head, up to a limit. */
  readonly text: string;
}

const textMax = 1 << 16;

/** @throws {Error} If it cannot connect. */
export async function open({ socketPath, port, identity }: Endpoint): Promise<Socket> {
  const socket = socketPath !== undefined
    ? connect(socketPath)
    : tls.connect({ host: "127.0.0.1", port: port!, rejectUnauthorized: false, ...identity });
  socket.on("error", () => {}); // the other end may close it at any time: handled by "close"
  await Promise.race([
    once(socket, socketPath !== undefined ? "connect" : "secureConnect"),
    once(socket, "close").then(() => {
      throw new Error("no connection");
    }),
  ]);
  return socket;
}

/** Sends, and reads until the other end closes.
 * @param ends Whether to close the sending side after the bytes. @param limitMs Limit for all of it.
 * @throws {Error} "no end after …" */
export async function exchange(endpoint: Endpoint, bytes: Uint8Array, ends: boolean, limitMs: number): Promise<Reply> {
  const socket = await open(endpoint);
  const chunks: Uint8Array[] = [];
  let size = 0;
  socket.on("data", (chunk: Uint8Array) => {
    if (size < textMax) chunks.push(chunk);
    size += chunk.length;
  });
  const closed = ended(socket);
  socket.write(bytes);
  if (ends) socket.end();
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    await Promise.race([
      closed,
      new Promise((_, reject) => {
        const text = () => Buffer.concat(chunks).toString("latin1").slice(0, 200);
        timer = setTimeout(
          () => reject(new Error(`no end after ${limitMs} ms; so far: ${text()}`)),
          limitMs * slowness,
        );
      }),
    ]);
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
  const text = Buffer.concat(chunks).toString("latin1");
  return { status: Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0), text };
}

/** Settles when the other end has closed. "close" alone is not enough: Deno's socket has none after a failed write. */
export function ended(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    for (const event of ["end", "error", "close"]) socket.once(event, () => resolve());
  });
}

/** Opens a websocket; the caller makes its frames. @returns The socket, or the response if the upgrade is refused. */
export async function upgrade(endpoint: Endpoint, path: string): Promise<Socket | Reply> {
  const socket = await open(endpoint);
  const key = randomBytes(16).toString("base64");
  socket.write(
    `GET ${path} HTTP/1.1\r\nHost: lido\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`,
  );
  const [first] = await Promise.race([once(socket, "data"), once(socket, "close").then(() => [undefined])]);
  const text = first ? Buffer.from(first as Uint8Array).toString("latin1") : "";
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0);
  if (status === 101) return socket;
  socket.destroy();
  return { status, text };
}

export interface Frame {
  readonly fin: boolean;
  readonly reserved: number;
  readonly opcode: number;
  readonly isMasked: boolean;
  readonly payload: Buffer;
  /** Length in the header; the payload's own when absent. */
  readonly length?: bigint;
}

/** @see RFC 6455, section 5.2 */
export function encodeFrame({ fin, reserved, opcode, isMasked, payload, length }: Frame): Buffer {
  const said = length ?? BigInt(payload.length);
  const size = said < 126n ? Buffer.alloc(2) : said < 65536n ? Buffer.alloc(4) : Buffer.alloc(10);
  size[0] = (fin ? 0x80 : 0) | reserved << 4 | opcode;
  size[1] = (isMasked ? 0x80 : 0) | (said < 126n ? Number(said) : said < 65536n ? 126 : 127);
  if (size.length === 4) size.writeUInt16BE(Number(said), 2);
  if (size.length === 10) size.writeBigUInt64BE(BigInt.asUintN(64, said), 2);
  // A mask of zeros leaves the payload unchanged.
  return Buffer.concat([size, Buffer.alloc(isMasked ? 4 : 0), payload]);
}
