/** The fast parser: reads well-formed command lines, and leaves everything else (help, mistakes) to commander. */
import { type Flag, flagName, quietFlag, type Verb } from "./verb.ts";

export interface Parsed {
  verb: Verb;
  args: string[];
  flags: Record<string, unknown>;
  /** Whether `--quiet` was given. */
  quiet: boolean;
}

export const isQuiet = (word: string) => word === "--quiet" || word === `-${quietFlag.short}`;

/** Finds the verb that matches the most words, and the remaining words. `-q` may stand between them. */
export function findVerb(verbs: readonly Verb[], words: readonly string[]): { verb: Verb; rest: string[] } | undefined {
  const plain = words.flatMap((word, index) => isQuiet(word) ? [] : [{ word, index }]);
  let best: { verb: Verb; length: number } | undefined;
  for (const verb of verbs) {
    for (const spelling of [verb.words, ...verb.aliases ?? []]) {
      const parts = spelling.split(" ");
      if (parts.length > (best?.length ?? 0) && parts.every((part, index) => plain[index]?.word === part)) {
        best = { verb, length: parts.length };
      }
    }
  }
  if (best === undefined) return undefined;
  const end = plain[best.length - 1]!.index + 1;
  return { verb: best.verb, rest: [...words.slice(0, end).filter(isQuiet), ...words.slice(end)] };
}

function initialFlags(verb: Verb): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(verb.flags).map(([key, flag]) => [
      key,
      flag.many ? [] : flag.value === undefined ? false : flag.initial,
    ]),
  );
}

/** Whether the verb takes this number of arguments. */
export function fits(verb: Verb, count: number): boolean {
  const least = verb.args.filter((name) => !/\?$|\.\.\.$/.test(name)).length;
  const most = verb.args.some((name) => /\.\.\.$|\+$/.test(name)) ? Infinity : verb.args.length;
  return count >= least && count <= most;
}

/** Reads the words after the verb.
 * @returns undefined when they are not well-formed. */
export function parse(verb: Verb, words: readonly string[]): Parsed | undefined {
  const flags = initialFlags(verb);
  const table = Object.entries<Flag>({ ...verb.flags, quiet: quietFlag });
  const args: string[] = [];
  const set = (key: string, flag: Flag, value: string | true) => {
    if (flag.many) (flags[key] as string[]).push(String(value));
    else flags[key] = value;
  };
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? "";
    if (args.length >= (verb.optionsEndAfter ?? Infinity)) {
      args.push(...words.slice(index));
      break;
    }
    if (word === "--") {
      args.push(...words.slice(index + 1));
      break;
    }
    if (word.startsWith("--")) {
      const [, name = "", value] = /^--([^=]*)(?:=(.*))?$/s.exec(word) ?? [];
      const entry = table.find(([key]) => flagName(key) === name);
      if (entry === undefined) return undefined;
      const [key, flag] = entry;
      if (flag.value === undefined) {
        if (value !== undefined) return undefined;
        set(key, flag, true);
      } else {
        const given = value ?? words[++index];
        if (given === undefined) return undefined;
        set(key, flag, given);
      }
    } else if (word.startsWith("-") && word.length > 1) {
      for (let position = 1; position < word.length; position++) {
        const entry = table.find(([, flag]) => flag.short === word[position]);
        if (entry === undefined) return undefined;
        const [key, flag] = entry;
        if (flag.value === undefined) {
          set(key, flag, true);
          continue;
        }
        const given = position + 1 < word.length ? word.slice(position + 1).replace(/^=/, "") : words[++index];
        if (given === undefined) return undefined;
        set(key, flag, given);
        break;
      }
    } else {
      args.push(word);
    }
  }
  const { quiet, ...own } = flags;
  return fits(verb, args.length) ? { verb, args, flags: own, quiet: quiet === true } : undefined;
}
