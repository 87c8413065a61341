import { type IPty, spawn as spawnPty } from "@lydell/node-pty";
import { slowness } from "./slowness.ts";

/** A terminal in which a client runs; its output is read until it matches a pattern. */
export class Terminal {
  readonly #pty: IPty;
  #shown = "";
  #look = () => {};
  readonly ended: Promise<number>;

  constructor(argv: readonly string[], env: Record<string, string>, columns = 91) {
    this.#pty = spawnPty(argv[0]!, argv.slice(1), { cols: columns, rows: 33, env: { ...process.env, ...env } });
    this.#pty.onData((data) => {
      // busybox's shell asks for the cursor's position before each line, and may draw the line again.
      // deno-lint-ignore no-control-regex
      this.#shown += data.replaceAll(/\x1b\[[0-9;?]*[A-Za-z]/g, "");
      this.#look();
    });
    this.ended = new Promise((resolve) => this.#pty.onExit(({ exitCode }) => resolve(exitCode)));
  }

  /** Output that no `sees` has consumed. */
  get rest(): string {
    return this.#shown;
  }

  type(text: string): void {
    this.#pty.write(text);
  }

  /** Signals the started process alone, not its children. */
  send(signal: NodeJS.Signals): void {
    process.kill(this.#pty.pid, signal);
  }

  resize(columns: number, rows: number): void {
    this.#pty.resize(columns, rows);
  }

  [Symbol.dispose](): void {
    this.#pty.kill("SIGKILL");
  }

  /** Resolves with the match when `pattern` appears in output that was not consumed before. @throws {Error} After 10 s, with that output. */
  sees(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const late = setTimeout(
        () => reject(new Error(`${pattern} is not shown, but ${JSON.stringify(this.#shown)}`)),
        10_000 * slowness,
      );
      this.#look = () => {
        const found = pattern.exec(this.#shown);
        if (!found) return;
        clearTimeout(late);
        this.#look = () => {};
        this.#shown = this.#shown.slice(found.index + found[0].length);
        resolve(found);
      };
      this.#look();
    });
  }
}
