import { setTimeout as wait } from "node:timers/promises";
import { LidoError } from "../../api/errors.ts";
import { networkOf } from "../http/network.ts";
import type { Log } from "../log/failure.ts";

/** How many networks wait for the answer to a password at a time: more would be more guesses a second. */
const waitingMax = 16;
/** How many networks' wrong passwords are remembered, the newest: a bound on memory. */
const rememberedMax = 1024;
const firstDelayMs = 1_000;
const lastDelayMs = 60_000;

/** Slows down who guesses the trust password: each wrong one of a network is answered after twice the time of its previous one, one at a time,
 * and is a line in the log with the address. */
export class PasswordAttempts {
  readonly #log: Log;
  readonly #firstDelayMs: number;
  /** Wrong passwords of a network since its last right one. */
  readonly #wrong = new Map<string, number>();
  readonly #waiting = new Set<string>();

  constructor(options: { log: Log; firstDelayMs?: number }) {
    this.#log = options.log;
    this.#firstDelayMs = options.firstDelayMs ?? firstDelayMs;
  }

  /** @param address As the socket has it. @param check Whether the password is right.
   * @returns Its result, late if it is not. @throws {LidoError} unavailable while an earlier attempt of the network is not answered yet. */
  async attempt(address: string, check: () => Promise<boolean>): Promise<boolean> {
    const network = networkOf(address);
    // Also when the client has gone meanwhile: by hanging up it would have no delay.
    if (this.#waiting.has(network) || this.#waiting.size >= waitingMax) {
      throw new LidoError("unavailable", "Too many attempts at a time, try again");
    }
    this.#waiting.add(network);
    try {
      if (await check()) {
        this.#wrong.delete(network);
        return true;
      }
      const wrong = (this.#wrong.get(network) ?? 0) + 1;
      this.#remember(network, wrong);
      const delayMs = Math.min(this.#firstDelayMs * 2 ** (wrong - 1), lastDelayMs);
      this.#log.warn({ address, wrong, delayMs }, "wrong trust password");
      await wait(delayMs);
      return false;
    } finally {
      this.#waiting.delete(network);
    }
  }

  #remember(network: string, wrong: number): void {
    this.#wrong.delete(network); // it becomes the newest
    this.#wrong.set(network, wrong);
    if (this.#wrong.size > rememberedMax) this.#wrong.delete(this.#wrong.keys().next().value!);
  }
}
