import type { IncomingMessage } from "node:http";
import type { Context } from "hono";

/** Who is at the other end of a connection. */
export type Peer =
  /** The unix socket, whose file mode says who may connect. */
  | { readonly kind: "local" }
  /** TLS; with the certificate that the client showed and has the key of, in DER. */
  | { readonly kind: "tls"; readonly certificate?: Uint8Array };

const peers = new WeakMap<object, Peer>();

export function setPeer(socket: object, peer: Peer): void {
  peers.set(socket, peer);
}

/** One that nobody introduced is a stranger. */
export function peerOf(socket: object): Peer {
  return peers.get(socket) ?? { kind: "tls" };
}

/** Who sent a request; one that came by no connection was made in this process. */
export function peerOfRequest(c: Context): Peer {
  const incoming = (c.env as { incoming?: IncomingMessage } | undefined)?.incoming;
  return incoming ? peerOf(incoming.socket) : { kind: "local" };
}
