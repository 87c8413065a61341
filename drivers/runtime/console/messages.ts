/** What the daemon and the console server tell each other: one packet a request, one an answer, in turn. */

export type ConsoleRequest =
  /** Names of all that are kept. */
  | { readonly do: "list" }
  /** Keep the master that comes with it, which another server had before if `isTakeover`. */
  | { readonly do: "keep"; readonly name: string; readonly isTakeover?: boolean }
  /** A descriptor of the master. */
  | { readonly do: "share"; readonly name: string }
  /** What it printed last. */
  | { readonly do: "show"; readonly name: string }
  /** What it prints from now on, into the pipe that comes with it, until its reader closes it. With `isTakeover` before the console
   * itself is kept, so that nothing is printed in between. */
  | { readonly do: "follow"; readonly name: string; readonly isTakeover?: boolean }
  | { readonly do: "clear"; readonly name: string }
  /** Close it. */
  | { readonly do: "drop"; readonly name: string }
  /** End, if nothing is kept: the answer is the end of the connection. */
  | { readonly do: "end" };

/** The `error` for a console that is not kept. */
export const consoleNotFound = (name: string): string => `Console "${name}" not found`;

export interface ConsoleAnswer {
  readonly names?: readonly string[];
  /** Why it was not done. */
  readonly error?: string;
}

/** First byte of a packet that brings a part of what a console printed; its answer comes after the last one. */
export const contentMark = 0;
/** Of the text in one such packet. */
export const contentBytesMax = 32 * 1024;
/** The longest answer names every container of a host. */
export const packetBytesMax = 256 * 1024;

/** Where the console server's listening socket is when it starts. */
export const listeningFd = 3;
/** Name of the socket in the runtime's directory: short, for a socket's path is. */
export const socketName = ".tty";
