import type { Socket } from "node:net";
import { check, libc } from "../ffi/libc.ts";

const IPPROTO_TCP = 6, TCP_USER_TIMEOUT = 18;

/** Ends a connection when sent data stays unacknowledged for this long: a cut cable sends no end. Data that a living peer
 * does not read counts too, so this is for connections whose peer must read.
 * @returns False on a runtime that does not expose the descriptor. @see tcp(7), TCP_USER_TIMEOUT */
export function limitSilence(socket: Socket, timeoutMs: number): boolean {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
  if (fd === undefined || fd < 0) return false;
  const value = new Uint8Array(new Uint32Array([timeoutMs]).buffer);
  check("set TCP_USER_TIMEOUT", libc.setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, value, value.length));
  return true;
}
