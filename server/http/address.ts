import { LidoError } from "../../api/errors.ts";

/** As LXD's. */
const defaultPort = 8443;

export interface Address {
  /** "::" for all addresses. */
  readonly host: string;
  readonly port: number;
}

/** @param text "HOST:PORT", "[V6]:PORT", ":PORT" or without a port, as `core.https_address`.
 * @throws {LidoError} bad_request for anything else. */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([\w.-]*))(?::(\d{1,5}))?$/.exec(text) ?? /^()([0-9a-fA-F:]+)()$/.exec(text);
  const port = Number(match?.[3] || defaultPort);
  if (!match || text === "" || port > 65535) {
    throw new LidoError("bad_request", `Invalid address "${text}": HOST, HOST:PORT, [IPV6]:PORT or :PORT is allowed`);
  }
  return { host: match[1] || match[2] || "::", port };
}

export function showAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
