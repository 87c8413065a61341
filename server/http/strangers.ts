import type { Socket } from "node:net";
import { networkOf } from "./network.ts";

/** How long each phase of a connection may take, in ms. Received bytes do not extend it, so that a slow sender cannot hold a connection. */
const deadlinesMs = {
  handshake: 10_000,
  /** The whole header of the request, with the wait for its first byte: an untrusted connection has no reason to be idle. */
  header: 10_000,
  /** At most 16 KiB. */
  body: 10_000,
  /** A wrong password is answered with a delay of at most a minute. */
  answer: 70_000,
  /** To read the answer. */
  end: 1_000,
};
export type Phase = keyof typeof deadlinesMs;
/** The phases in their order. */
const phases = Object.keys(deadlinesMs);

/** Connections of one network, and of all: each costs some 100 KiB. A trusted client is no longer counted after milliseconds. */
const networkMax = 128;
const allMax = 512;

interface Connection {
  readonly network: string;
  phase: Phase;
  timer: NodeJS.Timeout;
}

export interface StrangersOptions {
  readonly deadlinesMs?: Readonly<Record<Phase, number>>;
  readonly networkMax?: number;
  readonly allMax?: number;
  /** Called for the first connection of a network that is ended by a limit, and not again until all connections of that network have ended. */
  readonly onLimit?: (address: string, limit: number) => void;
}

/** The connections of clients that are not trusted, or not yet: each has a deadline for its present phase, and their number is limited. The oldest
 * gives way to the newest: a trusted client is counted only for a moment, and an attacker cannot keep all places. */
export class Strangers {
  readonly #options: StrangersOptions;
  readonly #deadlinesMs: Readonly<Record<Phase, number>>;
  /** Oldest first, as are the sets below. */
  readonly #connections = new Map<Socket, Connection>();
  readonly #networks = new Map<string, Set<Socket>>();
  readonly #told = new Set<string>();

  constructor(options: StrangersOptions = {}) {
    this.#options = options;
    this.#deadlinesMs = options.deadlinesMs ?? deadlinesMs;
  }

  get size(): number {
    return this.#connections.size;
  }

  /** @param socket A socket that was accepted, before its handshake; or one whose client is no longer trusted. */
  admit(socket: Socket, phase: Phase): void {
    const address = socket.remoteAddress ?? "unknown";
    const network = networkOf(address);
    const neighbours = this.#networks.get(network) ?? new Set();
    this.#networks.set(network, neighbours.add(socket));
    this.#connections.set(socket, { network, phase, timer: this.#limit(socket, phase) });
    socket.once("close", () => this.release(socket));
    const { networkMax: ofNetwork = networkMax, allMax: ofAll = allMax } = this.#options;
    if (neighbours.size > ofNetwork) this.#giveWay(neighbours.values().next().value!, ofNetwork);
    if (this.#connections.size > ofAll) this.#giveWay(this.#connections.keys().next().value!, ofAll);
  }

  /** Does nothing for a socket that is not counted. @param phase The phase that begins now. */
  expect(socket: Socket, phase: Phase): void {
    const connection = this.#connections.get(socket);
    if (!connection) return;
    clearTimeout(connection.timer);
    connection.phase = phase;
    connection.timer = this.#limit(socket, phase);
  }

  has(socket: Socket): boolean {
    return this.#connections.has(socket);
  }

  /** Whether a counted socket is beyond a phase. */
  isPast(socket: Socket, phase: Phase): boolean {
    const connection = this.#connections.get(socket);
    return connection !== undefined && phases.indexOf(connection.phase) > phases.indexOf(phase);
  }

  /** Stops counting a socket: its client is trusted, or it is closed. */
  release(socket: Socket): void {
    const connection = this.#connections.get(socket);
    if (!connection) return;
    clearTimeout(connection.timer);
    this.#connections.delete(socket);
    const neighbours = this.#networks.get(connection.network)!;
    neighbours.delete(socket);
    if (neighbours.size > 0) return;
    this.#networks.delete(connection.network);
    this.#told.delete(connection.network);
  }

  /** Ends all connections. */
  close(): void {
    for (const socket of [...this.#connections.keys()]) socket.destroy();
  }

  #limit(socket: Socket, phase: Phase): NodeJS.Timeout {
    return setTimeout(() => socket.destroy(), this.#deadlinesMs[phase]);
  }

  #giveWay(socket: Socket, limit: number): void {
    const { network } = this.#connections.get(socket)!;
    if (!this.#told.has(network)) {
      this.#told.add(network);
      this.#options.onLimit?.(network, limit);
    }
    this.release(socket);
    socket.destroy();
  }
}
