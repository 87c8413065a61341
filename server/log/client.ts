import { AsyncLocalStorage } from "node:async_hooks";

/** Who asked for what is being done, for the log: a process on the unix socket, or the address and certificate of a TLS client. */
export type ClientIdentity =
  | { readonly uid: number; readonly pid: number }
  /** SHA-256 of the certificate, in hex; absent for one that showed none. */
  | { readonly certificate?: string; readonly address?: string };

const storage = new AsyncLocalStorage<() => ClientIdentity>();

/** Does a client's work; what it starts is known to be its doing, and goes on to be when the request is over.
 * @param identify Called when somebody wants to know, while the connection is there. */
export function asClient<Result>(identify: () => ClientIdentity, work: () => Result): Result {
  return storage.run(identify, work);
}

/** Does what the daemon does by itself, whoever gave the occasion: a timer that is set by a client's request is not the client's doing. */
export function asDaemon<Result>(work: () => Result): Result {
  return storage.exit(work);
}

/** @returns Who asked for this, or undefined when the daemon does it by itself. */
export function currentClient(): ClientIdentity | undefined {
  return storage.getStore()?.();
}
