import { addressOf, check, libc } from "./libc.ts";

/** Descriptors that another process sends over a unix socket. @see unix(7), cmsg(3) */

const AF_UNIX = 1, SOCK_STREAM = 1, SOCK_CLOEXEC = 0x80000, SOCK_NONBLOCK = 0x800;
const MSG_CMSG_CLOEXEC = 0x40000000, SOL_SOCKET = 1, SCM_RIGHTS = 1;
const pathMax = 107;

/** @param path At most 107 bytes. @returns A listening socket that does not block. */
export function listenUnix(path: string): number {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length > pathMax) {
    throw new Error(`Cannot listen on "${path}": a socket's path has at most ${pathMax} bytes`);
  }
  const address = new Uint8Array(110);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(bytes, 2);
  const socket = check("make a socket", libc.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  try {
    check(`bind ${path}`, libc.bind(socket, address, address.length));
    check(`listen on ${path}`, libc.listen(socket, 1));
    return socket;
  } catch (error) {
    libc.close(socket);
    throw error;
  }
}

export function acceptUnix(listening: number): number {
  return check("accept a connection", libc.accept4(listening, null, null, SOCK_CLOEXEC));
}

/** Takes the one descriptor that came with a message; call it when the socket is readable.
 * @throws {Error} If the message brings none. */
export function receiveFd(socket: number): number {
  const data = new Uint8Array(4096), control = new Uint8Array(64);
  const vector = new BigUint64Array([addressOf(data), BigInt(data.length)]);
  const message = new Uint8Array(56);
  const view = new DataView(message.buffer);
  view.setBigUint64(16, addressOf(new Uint8Array(vector.buffer)), true);
  view.setBigUint64(24, 1n, true);
  view.setBigUint64(32, addressOf(control), true);
  view.setBigUint64(40, BigInt(control.length), true);
  check("receive a descriptor", libc.recvmsg(socket, message, MSG_CMSG_CLOEXEC));
  const header = new DataView(control.buffer);
  if (header.getInt32(8, true) !== SOL_SOCKET || header.getInt32(12, true) !== SCM_RIGHTS) {
    throw new Error("the peer sent no descriptor");
  }
  return header.getInt32(16, true);
}
