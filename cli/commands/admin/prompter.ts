import { UsageError } from "../../client/errors.ts";
import { readLine } from "../../exec/descriptors.ts";
import type { Io } from "../../verb.ts";

/** Questions on the terminal, or answers from a pipe. */
export class Prompter {
  readonly #out: Io["out"];

  constructor(io: Pick<Io, "out">) {
    this.#out = io.out;
  }

  tell(text: string): void {
    this.#out(`${text}\n`);
  }

  /** Asks until the answer is valid. @param check Returns an error text for an invalid answer. @throws {UsageError} At the end of input. */
  async text(question: string, initial: string, check: (answer: string) => string | undefined): Promise<string> {
    while (true) {
      this.#out(`${question}${initial === "" ? "" : ` [default=${initial}]`}: `);
      const line = await readLine();
      if (line === undefined) throw new UsageError("The input ended before all was answered");
      const answer = line.trim() === "" ? initial : line.trim();
      const wrong = check(answer);
      if (wrong === undefined) return answer;
      this.#out(`Invalid input: ${wrong}\n\n`);
    }
  }

  async choice(question: string, options: readonly string[], initial: string): Promise<string> {
    return await this.text(
      `${question} (${options.join(", ")})`,
      initial,
      (answer) => options.includes(answer) ? undefined : `"${answer}" is none of ${options.join(", ")}`,
    );
  }

  async yes(question: string, initial: boolean): Promise<boolean> {
    const answer = await this.text(
      `${question} (yes/no)`,
      initial ? "yes" : "no",
      (text) => /^(y|yes|n|no)$/i.test(text) ? undefined : `"${text}" is neither yes nor no`,
    );
    return /^y/i.test(answer);
  }
}
