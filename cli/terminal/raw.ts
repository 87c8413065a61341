/** Raw mode and size of the client's terminal. Loaded only by interactive verbs. */
const { makeRaw, windowSizeOf } = await import("../../drivers/host/process/terminal.ts");

export interface WindowSize {
  width: number;
  height: number;
}

/** Size of the first of stdout, stdin and stderr that is a terminal; zeroes when none is. */
export function windowSize(): WindowSize {
  const sizes = [1, 0, 2].map(windowSizeOf);
  return sizes.find((size) => size !== undefined && size.width > 0 && size.height > 0) ?? { width: 0, height: 0 };
}

/** Raw mode on stdin until disposed of; the terminal is also restored on an uncaught error and at exit. */
export class RawMode {
  #giveBack: (() => void) | undefined = makeRaw(0);
  readonly #restore = () => this[Symbol.dispose]();

  constructor() {
    process.on("exit", this.#restore);
  }

  [Symbol.dispose](): void {
    process.off("exit", this.#restore);
    this.#giveBack?.();
    this.#giveBack = undefined;
  }
}
