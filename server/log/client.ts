import { AsyncLocalStorage } from "node:async_hooks";

/** The client whose request caused the present work, for the log: a process on the unix socket, or the address and certificate of a TLS client. */
export type ClientIdentity =
  | { readonly uid: number; readonly pid: number }
  /** SHA-256 of the certificate, in hex; absent for a client without one. */
  | { readonly certificate?: string; readonly address?: string };

const storage = new AsyncLocalStorage<() => ClientIdentity>();

/** Does a client's work; the work, and all that it starts, is attributed to the client, also after the request has ended.
 * @param identify Called when the identity is needed, while the connection is open. */
export function asClient<Result>(identify: () => ClientIdentity, work: () => Result): Result {
  return storage.run(identify, work);
}

/** Does work of the daemon's own, even if a client's request caused it: a timer that a request set is not attributed to the client. */
export function asDaemon<Result>(work: () => Result): Result {
  return storage.exit(work);
}

/** @returns The client whose request caused the present work; undefined for the daemon's own work. */
export function currentClient(): ClientIdentity | undefined {
  return storage.getStore()?.();
}
