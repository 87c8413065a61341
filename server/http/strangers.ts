import type { Socket } from "node:net";
import { networkOf } from "./network.ts";

/** What a connection is waited for, and how long, in ms. What comes meanwhile does not extend it: one byte a second is no request. */
const deadlinesMs = {
  handshake: 10_000,
  /** All of a request's header; also the first byte of it, as there is nothing else to be idle for. */
  header: 10_000,
  /** At most 16 KiB. */
  body: 10_000,
  /** A wrong password is answered late, after a minute at most. */
  answer: 70_000,
  /** To read the answer. */
  end: 1_000,
};
export type Phase = keyof typeof deadlinesMs;
/** In their order. */
const phases = Object.keys(deadlinesMs);

/** Of one network, and of all: each costs some 100 KiB. Whoever is trusted leaves these numbers within milliseconds. */
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
  /** Told of the first connection of a network that is ended for a limit, and of no more until all of that network are gone. */
  readonly onLimit?: (address: string, limit: number) => void;
}

/** The connections of who is not trusted, or not yet: each has a deadline for what it is to do next, and there are only so many. The oldest
 * gives way to the newest: a client with a right to be here needs its place for a moment only, one that fills all places keeps none. */
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

  /** @param socket One that was accepted, before its handshake; or one whose client is trusted no more. */
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

  /** @param phase What is waited for from now on; of one that is no stranger's, nothing. */
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

  /** Whether it is a stranger's that has done already what was waited for. */
  isPast(socket: Socket, phase: Phase): boolean {
    const connection = this.#connections.get(socket);
    return connection !== undefined && phases.indexOf(connection.phase) > phases.indexOf(phase);
  }

  /** Its client is trusted, or it is closed. */
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

  /** Ends all of them. */
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
