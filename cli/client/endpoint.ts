/** Where the daemon listens. A local one is a unix socket, a remote one an https URL with a client certificate. */
export type Endpoint =
  | { kind: "unix"; socket: string }
  | { kind: "https"; url: string; certificate?: string; key?: string; serverCertificate?: string };

/** The local socket: $LIDO_SOCKET, else $LIDO_DIR/unix.socket, else /var/lib/lido/unix.socket. */
export function localEndpoint(environment: Record<string, string | undefined> = process.env): Endpoint {
  const socket = environment.LIDO_SOCKET || `${environment.LIDO_DIR || "/var/lib/lido"}/unix.socket`;
  return { kind: "unix", socket };
}
