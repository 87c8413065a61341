import { setTimeout as wait } from "node:timers/promises";
import { LidoError } from "../../api/errors.ts";
import { networkOf } from "../http/network.ts";
import type { Log } from "../log/failure.ts";

/** How many networks may wait for the answer to a password at a time: this limits the guesses a second. */
const waitingMax = 16;
/** For how many networks, the latest ones, the wrong passwords are counted: a limit on memory. */
const rememberedMax = 1024;
const firstDelayMs = 1_000;
const lastDelayMs = 60_000;

/** Slows down guessing of the trust password: a network's wrong passwords are answered one at a time, each after twice the delay of the one before,
 * and logged with the address. */
export class PasswordAttempts {
  readonly #log: Log;
  readonly #firstDelayMs: number;
  /** Number of wrong passwords of a network since its last right one. */
  readonly #wrong = new Map<string, number>();
  readonly #waiting = new Set<string>();

  constructor(options: { log: Log; firstDelayMs?: number }) {
    this.#log = options.log;
    this.#firstDelayMs = options.firstDelayMs ?? firstDelayMs;
  }

  /** @param address As the socket has it. @param check Whether the password is right.
   * @returns The result of `check`, delayed if it is wrong.
   * @throws {LidoError} unavailable while an earlier attempt of the network is not answered yet. */
  async attempt(address: string, check: () => Promise<boolean>): Promise<boolean> {
    const network = networkOf(address);
    // Refused even if the earlier attempt's client has disconnected: otherwise disconnecting would avoid the delay.
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
    this.#wrong.delete(network); // inserted again, it is the newest
    this.#wrong.set(network, wrong);
    if (this.#wrong.size > rememberedMax) this.#wrong.delete(this.#wrong.keys().next().value!);
  }
}
