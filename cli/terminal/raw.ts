/** The client's terminal: raw mode and its size. Loaded only by interactive verbs. */
import { WriteStream } from "node:tty";

export interface WindowSize {
  width: number;
  height: number;
}

/** Size of the first of stdout, stdin and stderr that is a terminal; zeroes when none is. */
export function windowSize(): WindowSize {
  for (const fd of [1, 0, 2]) {
    try {
      const stream = new WriteStream(fd);
      const [width, height] = stream.getWindowSize();
      if (width > 0 && height > 0) return { width, height };
    } catch {
      // Not a terminal: the next one may be.
    }
  }
  return { width: 0, height: 0 };
}

/** Raw mode on stdin until disposed of; the terminal is given back on an uncaught error and at exit too. */
export class RawMode {
  #giveBack: (() => void) | undefined;
  readonly #restore = () => this[Symbol.dispose]();

  private constructor(giveBack: () => void) {
    this.#giveBack = giveBack;
    process.on("exit", this.#restore);
  }

  static async enter(): Promise<RawMode> {
    const { makeRaw } = await import("../../drivers/host/terminal.ts");
    return new RawMode(makeRaw(0));
  }

  [Symbol.dispose](): void {
    process.off("exit", this.#restore);
    this.#giveBack?.();
    this.#giveBack = undefined;
  }
}
