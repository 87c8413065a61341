import { UsageError } from "../../client/errors.ts";
import { readLine } from "../../exec/descriptors.ts";

/** Questions on the terminal, or answers from a pipe. */
export class Prompter {
  tell(text: string): void {
    process.stdout.write(`${text}\n`);
  }

  /** Asks until the answer will do. @param check Says what is wrong with it. @throws {UsageError} At the end of input. */
  async text(question: string, initial: string, check: (answer: string) => string | undefined): Promise<string> {
    while (true) {
      process.stdout.write(`${question}${initial === "" ? "" : ` [default=${initial}]`}: `);
      const line = await readLine();
      if (line === undefined) throw new UsageError("The input ended before all was answered");
      const answer = line.trim() === "" ? initial : line.trim();
      const wrong = check(answer);
      if (wrong === undefined) return answer;
      process.stdout.write(`Invalid input: ${wrong}\n\n`);
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
