/** Completes a command line for a shell. It never fails and never waits long: the prompt must stay usable in any state of the daemon. */
import type { Client } from "../client/client.ts";
import { nouns, spellings } from "../nouns.ts";
import { isQuiet } from "../parse.ts";
import { type Candidate, positionOf } from "./position.ts";
import { files, wordsFor } from "./sources.ts";

/** How long to wait for the daemon, in milliseconds. */
const patienceMs = 1500;

export interface Completion {
  /** Whether the shell should complete file names. */
  readonly files: boolean;
  readonly candidates: readonly Candidate[];
}

const nothing: Completion = { files: false, candidates: [] };

async function find(client: Client, words: readonly string[]): Promise<Completion> {
  const current = words.at(-1) ?? "";
  const start = words.findIndex((word) => !isQuiet(word));
  const [first = "", ...rest] = words.slice(Math.max(0, start));
  if (first === "help" && rest.length > 0) return await find(client, rest);
  if (rest.length === 0) {
    const all = Object.entries(nouns).filter(([, { hidden }]) => !hidden)
      .map(([word, { summary }]) => ({ word, summary }));
    const options = ["--help", "--version", "--quiet"].map((word) => ({ word }));
    return {
      files: false,
      candidates: current.startsWith("-") ? options : [...all, { word: "help", summary: "Show help" }],
    };
  }
  const name = spellings[first] ?? first;
  const noun = Object.hasOwn(nouns, name) ? nouns[name] : undefined;
  if (noun === undefined) return nothing;
  const { verbs } = await noun.load();
  const position = positionOf(verbs.filter((verb) => verb.words.split(" ")[0] === name), [name, ...rest]);
  if (position.kind === "words") return { files: false, candidates: position.candidates };
  const place = { client, text: position.text, ...position.given };
  if (position.kind === "argument") {
    const found = await wordsFor(position.name, place);
    return found === files ? { files: true, candidates: [] } : { files: false, candidates: found };
  }
  const { flag, before } = position;
  const found = flag.values?.map((word) => ({ word })) ?? await wordsFor(flag.value!, place);
  if (found === files) return { files: before === "", candidates: [] };
  return { files: false, candidates: found.map((one: Candidate) => ({ ...one, word: before + one.word })) };
}

/** @param words Those after the program's name; the last is the one at the cursor, perhaps empty. */
export async function complete(client: Client, words: readonly string[]): Promise<Completion> {
  const late = Promise.withResolvers<Completion>();
  const timer = setTimeout(() => late.resolve(nothing), patienceMs);
  try {
    const { files: isFile, candidates } = await Promise.race([find(client, words), late.promise]);
    const current = words.at(-1) ?? "";
    const fitting = candidates.filter(({ word }) => word.startsWith(current));
    return { files: isFile, candidates: fitting };
  } catch {
    return nothing;
  } finally {
    clearTimeout(timer);
  }
}
