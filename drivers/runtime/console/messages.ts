/** Messages between the daemon and the console server: one packet per request, one per answer, in turn. */

export type ConsoleRequest =
  /** Names of all consoles that are kept. */
  | { readonly do: "list" }
  /** Keep the master that is passed along; with `isTakeover`, another server had it before. */
  | { readonly do: "keep"; readonly name: string; readonly isTakeover?: boolean }
  /** Pass a descriptor of the master. */
  | { readonly do: "share"; readonly name: string }
  /** The latest output. */
  | { readonly do: "show"; readonly name: string }
  /** Write output from now on into the pipe that is passed along, until its reader closes it. With `isTakeover`, sent before "keep", so that no
   * output is missed in between. */
  | { readonly do: "follow"; readonly name: string; readonly isTakeover?: boolean }
  | { readonly do: "clear"; readonly name: string }
  /** Close the console. */
  | { readonly do: "drop"; readonly name: string }
  /** End, if no console is kept: the answer is the end of the connection. */
  | { readonly do: "end" };

/** The `error` for an unknown console. */
export const consoleNotFound = (name: string): string => `Console "${name}" not found`;

export interface ConsoleAnswer {
  readonly names?: readonly string[];
  /** Why the request failed. */
  readonly error?: string;
}

/** First byte of a packet with a part of a console's output; the answer comes after the last part. */
export const contentMark = 0;
/** Maximum of output in one such packet. */
export const contentBytesMax = 32 * 1024;
/** The longest answer names every container of a host. */
export const packetBytesMax = 256 * 1024;

/** Descriptor of the listening socket when the console server starts. */
export const listeningFd = 3;
/** Name of the socket in the runtime's directory: short, because socket paths are limited. */
export const socketName = ".tty";
