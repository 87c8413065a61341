import type { Socket } from "node:net";
import { check, libc } from "../ffi/libc.ts";

const SOL_SOCKET = 1, SO_PEERCRED = 17;

/** @returns The process and user that connected to a unix socket, with the ids as this process sees them.
 * @throws {Error} When the runtime does not expose the descriptor. @see unix(7), SO_PEERCRED */
export function peerCredentials(socket: Socket): { pid: number; uid: number; gid: number } {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
  if (fd === undefined || fd < 0) throw new Error("Cannot tell who connected: the socket has no descriptor");
  const credentials = new Uint32Array(3), size = new Uint32Array([credentials.byteLength]);
  const bytes = (words: Uint32Array) => new Uint8Array(words.buffer);
  check("get SO_PEERCRED", libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, bytes(credentials), bytes(size)));
  const [pid, uid, gid] = credentials as unknown as [number, number, number];
  return { pid, uid, gid };
}
