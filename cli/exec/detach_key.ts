const ctrlA = 0x01, q = 0x71;

/** Finds Ctrl-a q in typed input, as in `lxc console`; Ctrl-a twice is one Ctrl-a. */
export class DetachKey {
  #isEscaped = false;

  /** @returns The input for the command, and whether the key was pressed: input after it is dropped. */
  feed(typed: Uint8Array): { readonly rest: Uint8Array; readonly isPressed: boolean } {
    if (!this.#isEscaped && !typed.includes(ctrlA)) return { rest: typed, isPressed: false };
    const rest: number[] = [];
    for (const byte of typed) {
      if (this.#isEscaped) {
        this.#isEscaped = false;
        if (byte === q) return { rest: Uint8Array.from(rest), isPressed: true };
        rest.push(ctrlA);
        if (byte !== ctrlA) rest.push(byte);
      } else if (byte === ctrlA) {
        this.#isEscaped = true;
      } else {
        rest.push(byte);
      }
    }
    return { rest: Uint8Array.from(rest), isPressed: false };
  }
}
