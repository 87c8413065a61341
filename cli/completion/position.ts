/** What can follow at the end of an unfinished command line. */
import { isQuiet } from "../parse.ts";
import { type Flag, flagName, quietFlag, type Verb } from "../verb.ts";

export interface Candidate {
  readonly word: string;
  readonly summary?: string;
}

/** The words given so far. */
export interface Given {
  readonly verb: Verb;
  readonly args: readonly string[];
  /** Values by the flag's key; the last one of a repeated flag. */
  readonly flags: ReadonlyMap<string, string>;
}

export type Position =
  /** One of these words. */
  | { readonly kind: "words"; readonly candidates: readonly Candidate[] }
  /** The value of an option; `before` is the part of the same word before it, as `--format=`. */
  | {
    readonly kind: "value";
    readonly given: Given;
    readonly flag: Flag;
    readonly before: string;
    readonly text: string;
  }
  /** An argument, named as in the verb's table. */
  | { readonly kind: "argument"; readonly given: Given; readonly name: string; readonly text: string };

/** The next words of the verbs that begin with those given: `storage` → create, list, volume, …. */
function nextWords(verbs: readonly Verb[], words: readonly string[]): Candidate[] {
  const next = new Map<string, string>();
  for (const verb of verbs) {
    const parts = verb.words.split(" ");
    if (parts.length <= words.length || !words.every((word, index) => parts[index] === word)) continue;
    const isLast = parts.length === words.length + 1;
    if (isLast || !next.has(parts[words.length]!)) next.set(parts[words.length]!, isLast ? verb.summary : "");
  }
  return [...next].map(([word, summary]) => ({ word, summary }));
}

/** The verb that matches the most words. */
function verbAt(verbs: readonly Verb[], words: readonly string[]): { verb: Verb; length: number } | undefined {
  const spelled = verbs.flatMap((verb) =>
    [verb.words, ...verb.aliases ?? []].map((spelling) => ({ verb, parts: spelling.split(" ") }))
  );
  const fitting = spelled.filter(({ parts }) => parts.every((part, index) => words[index] === part));
  fitting.sort((left, right) => right.parts.length - left.parts.length);
  return fitting[0] && { verb: fitting[0].verb, length: fitting[0].parts.length };
}

/** @param words Those after the program's name, the noun spelled out; the last is at the cursor, perhaps empty. @param verbs Of the noun. */
export function positionOf(verbs: readonly Verb[], words: readonly string[]): Position {
  const before = words.slice(0, -1).filter((word) => !isQuiet(word));
  const current = words.at(-1) ?? "";
  const found = verbAt(verbs, before);
  if (found === undefined) return { kind: "words", candidates: nextWords(verbs, before) };
  const { verb } = found;
  const table = Object.entries<Flag>({ ...verb.flags, quiet: quietFlag, help: { short: "h", summary: "Show help" } });
  const byLong = (word: string) => table.find(([key]) => `--${flagName(key)}` === word);
  const args: string[] = [];
  const flags = new Map<string, string>();
  let pending: [string, Flag] | undefined;
  let areOver = false;
  for (const word of before.slice(found.length)) {
    if (pending !== undefined) {
      flags.set(pending[0], word);
      pending = undefined;
    } else if (areOver || !word.startsWith("-") || word === "-") {
      args.push(word);
      areOver ||= args.length >= (verb.optionsEndAfter ?? Infinity);
    } else if (word === "--") {
      areOver = true;
    } else {
      const [name = "", value] = word.startsWith("--") ? word.split(/=(.*)/s) : [word];
      // Of bundled short options only the last can take the next word as its value.
      const entry = word.startsWith("--") ? byLong(name) : table.find(([, { short }]) => short === word.at(-1));
      if (entry === undefined) continue;
      if (entry[1].value !== undefined && value === undefined) pending = entry;
      else flags.set(entry[0], value ?? "");
    }
  }
  const given = { verb, args, flags };
  if (pending !== undefined) return { kind: "value", given, flag: pending[1], before: "", text: current };
  const [, option, text] = /^(--[^=]+=)(.*)$/s.exec(current) ?? [];
  const flag = option !== undefined && !areOver ? byLong(option.slice(0, -1))?.[1] : undefined;
  if (flag?.value !== undefined) return { kind: "value", given, flag, before: option!, text: text! };
  if (current.startsWith("-") && !areOver) {
    const left = table.filter(([key, { many, hidden }]) => !hidden && (many || !flags.has(key)));
    const candidates = left.map(([key, { summary }]) => ({ word: `--${flagName(key)}`, summary }));
    return { kind: "words", candidates };
  }
  const last = verb.args.at(-1);
  const name = verb.args[args.length] ?? (last !== undefined && /\.\.\.$|\+$/.test(last) ? last : undefined);
  const more = nextWords(verbs, before);
  if (name === undefined || more.length > 0) return { kind: "words", candidates: more };
  return { kind: "argument", given, name: name.replace(/(\?|\.\.\.|\+)$/, ""), text: current };
}
