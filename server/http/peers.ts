import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Context } from "hono";
import { peerCredentials } from "../../drivers/host/sockets/unix_peer.ts";
import { fingerprintOf } from "../credentials/certificate.ts";
import type { ClientIdentity } from "../log/client.ts";

/** The client at the other end of a connection. */
export type Peer =
  /** A client of the unix socket, whose file mode determines who may connect. */
  | { readonly kind: "local" }
  /** A TLS client, with its address, and its certificate in DER if it showed one; the handshake proved that it has the key. */
  | { readonly kind: "tls"; readonly certificate?: Uint8Array; readonly address?: string };

const peers = new WeakMap<object, Peer>();

export function setPeer(socket: object, peer: Peer): void {
  peers.set(socket, peer);
}

/** A socket without a known peer counts as a TLS client without a certificate. */
export function peerOf(socket: object): Peer {
  return peers.get(socket) ?? { kind: "tls" };
}

/** The peer that sent a request; a request without a connection was made in this process. */
export function peerOfRequest(c: Context): Peer {
  const incoming = (c.env as { incoming?: IncomingMessage } | undefined)?.incoming;
  return incoming ? peerOf(incoming.socket) : { kind: "local" };
}

/** The identity of a request's client, for the log. */
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
  // A closed socket has no descriptor to ask for credentials.
  if (incoming.socket.destroyed) return {};
  const { uid, pid } = peerCredentials(incoming.socket as Socket);
  return { uid, pid };
}
