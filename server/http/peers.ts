import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Context } from "hono";
import { peerCredentials } from "../../drivers/host/sockets/unix_peer.ts";
import { fingerprintOf } from "../credentials/certificate.ts";
import type { ClientIdentity } from "../log/client.ts";

/** Who is at the other end of a connection. */
export type Peer =
  /** The unix socket, whose file mode says who may connect. */
  | { readonly kind: "local" }
  /** TLS; with the certificate that the client showed and has the key of, in DER, and its address. */
  | { readonly kind: "tls"; readonly certificate?: Uint8Array; readonly address?: string };

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

/** Who that is, for the log. */
export function clientOfRequest(c: Context): ClientIdentity {
  const incoming = (c.env as { incoming?: IncomingMessage } | undefined)?.incoming;
  if (!incoming) return { uid: process.getuid?.() ?? 0, pid: process.pid };
  const peer = peerOf(incoming.socket);
  if (peer.kind === "tls") {
    return {
      ...(peer.address === undefined ? {} : { address: peer.address }),
      ...(peer.certificate ? { certificate: fingerprintOf(peer.certificate) } : {}),
    };
  }
  // One that has gone meanwhile has no descriptor.
  if (incoming.socket.destroyed) return {};
  const { uid, pid } = peerCredentials(incoming.socket as Socket);
  return { uid, pid };
}
