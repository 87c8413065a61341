import { addressOf, check, errno, libc, SystemCallError } from "../ffi/libc.ts";
import { again, setNonBlocking } from "../process/process.ts";

/** Passes descriptors between processes over unix sockets. @see unix(7), cmsg(3) */

const AF_UNIX = 1, SOCK_STREAM = 1, SOCK_SEQPACKET = 5, SOCK_CLOEXEC = 0x80000, SOCK_NONBLOCK = 0x800;
const MSG_CMSG_CLOEXEC = 0x40000000, MSG_NOSIGNAL = 0x4000, SOL_SOCKET = 1, SCM_RIGHTS = 1, SO_SNDBUFFORCE = 32;
const EAGAIN = 11, EINTR = 4;
const pathMax = 107;

/** @param path At most 107 bytes. @param options.packets Whether message boundaries are preserved (SOCK_SEQPACKET).
 * @returns A listening socket that does not block. */
export function listenUnix(path: string, options: { packets?: boolean } = {}): number {
  const socket = openSocket(options.packets ?? false);
  try {
    const address = addressFor(path, "listen on");
    check(`bind ${path}`, libc.bind(socket, address, address.length));
    check(`listen on ${path}`, libc.listen(socket, 1));
    return socket;
  } catch (error) {
    libc.close(socket);
    throw error;
  }
}

/** Connects to a socket that preserves message boundaries. @returns A socket that does not block.
 * @throws {SystemCallError} ENOENT, or ECONNREFUSED when no process listens. */
export function connectUnix(path: string): number {
  const socket = openSocket(true);
  try {
    const address = addressFor(path, "connect to");
    check(`connect to ${path}`, libc.connect(socket, address, address.length));
    return socket;
  } catch (error) {
    libc.close(socket);
    throw error;
  }
}

/** @returns A connection that does not block if `options.nonBlocking`. */
export function acceptUnix(listening: number, options: { nonBlocking?: boolean } = {}): number {
  const flags = SOCK_CLOEXEC | (options.nonBlocking ? SOCK_NONBLOCK : 0);
  return check("accept a connection", libc.accept4(listening, null, null, flags));
}

/** Creates two connected sockets that preserve message boundaries.
 * @returns `near`, which does not block, and `far` for another process, which does. */
export function socketPair(): { readonly near: number; readonly far: number } {
  const fds = new Int32Array(2);
  const type = SOCK_SEQPACKET | SOCK_CLOEXEC;
  check("make two sockets", libc.socketpair(AF_UNIX, type, 0, new Uint8Array(fds.buffer)));
  setNonBlocking(fds[0]!);
  return { near: fds[0]!, far: fds[1]! };
}

/** Receives the one descriptor of a message; call it when the socket is readable.
 * @throws {Error} If the message brings none. */
export function receiveFd(socket: number): number {
  const packet = receivePacket(socket, new Uint8Array(4096));
  if (packet === again || packet.fd === undefined) throw new Error("the peer sent no descriptor");
  return packet.fd;
}

/** Sends one message with at most 12 descriptors; without waiting if the socket does not block.
 * @throws {SystemCallError} EPIPE when the peer is gone; EAGAIN when its queue is full; EMSGSIZE. */
export function sendPacket(socket: number, bytes: Uint8Array, ...fds: readonly (number | undefined)[]): void {
  const given = fds.filter((fd) => fd !== undefined);
  // CMSG_SPACE and CMSG_LEN of this many ints.
  const control = new Uint8Array(given.length === 0 ? 0 : 16 + Math.ceil(given.length / 2) * 8);
  if (given.length > 0) {
    const header = new DataView(control.buffer);
    header.setBigUint64(0, BigInt(16 + 4 * given.length), true);
    header.setInt32(8, SOL_SOCKET, true);
    header.setInt32(12, SCM_RIGHTS, true);
    given.forEach((fd, index) => header.setInt32(16 + 4 * index, fd, true));
  }
  const message = messageHeader(bytes, control);
  check("send a message", libc.sendmsg(socket, message.bytes, MSG_NOSIGNAL));
}

/** @param bytes Maximum of data waiting for the peer; not capped by the host's limit. */
export function setSendBuffer(socket: number, bytes: number): void {
  const value = new Uint8Array(new Int32Array([bytes]).buffer);
  check("set a socket's buffer", libc.setsockopt(socket, SOL_SOCKET, SO_SNDBUFFORCE, value, value.length));
}

export interface Packet {
  /** Empty only when the peer is gone: no message is empty. */
  readonly bytes: Uint8Array;
  /** The first of `fds`. */
  readonly fd?: number;
  /** Descriptors that came with it; the receiver closes them. */
  readonly fds: readonly number[];
}

/** @param buffer As large as the largest message. @returns The next message, a view of the buffer, or `again` when there is none just now. */
export function receivePacket(socket: number, buffer: Uint8Array): Packet | typeof again {
  const control = new Uint8Array(64);
  const message = messageHeader(buffer, control);
  const count = Number(libc.recvmsg(socket, message.bytes, MSG_CMSG_CLOEXEC));
  if (count < 0) {
    const number = errno();
    if (number === EAGAIN || number === EINTR) return again;
    throw new SystemCallError("receive a message", number);
  }
  const header = new DataView(control.buffer);
  const hasFd = header.getInt32(8, true) === SOL_SOCKET && header.getInt32(12, true) === SCM_RIGHTS;
  const fdCount = hasFd ? (Number(header.getBigUint64(0, true)) - 16) / 4 : 0;
  const fds = Array.from({ length: fdCount }, (_, index) => header.getInt32(16 + 4 * index, true));
  return { bytes: buffer.subarray(0, count), fds, ...(fds.length > 0 ? { fd: fds[0]! } : {}) };
}

/** `struct msghdr`; its buffers live as long as the result. */
function messageHeader(data: Uint8Array, control: Uint8Array): { bytes: Uint8Array; kept: unknown } {
  const vector = new Uint8Array(new BigUint64Array([addressOf(data), BigInt(data.length)]).buffer);
  const bytes = new Uint8Array(56);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(16, addressOf(vector), true);
  view.setBigUint64(24, 1n, true);
  if (control.length > 0) view.setBigUint64(32, addressOf(control), true);
  view.setBigUint64(40, BigInt(control.length), true);
  return { bytes, kept: [data, control, vector] };
}

function openSocket(packets: boolean): number {
  const type = (packets ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
  return check("make a socket", libc.socket(AF_UNIX, type, 0));
}

function addressFor(path: string, verb: string): Uint8Array {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length > pathMax) {
    throw new Error(`Cannot ${verb} "${path}": a socket's path has at most ${pathMax} bytes`);
  }
  const address = new Uint8Array(110);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(bytes, 2);
  return address;
}
