/** The page of the commands, from the tables that `--help` is made from. */
import { nouns, spellings } from "../../cli/nouns.ts";
import { argumentSyntax, groupSummaries } from "../../cli/program.ts";
import { type Flag, flagName, quietFlag, type Verb } from "../../cli/verb.ts";
import { code, codeBlock, page, paragraph, table } from "./markdown.ts";

export interface NounVerbs {
  readonly noun: string;
  readonly summary: string;
  /** Other spellings of it as first word. */
  readonly spellings: readonly string[];
  readonly verbs: readonly Verb[];
}

/** Every command that the help names, sorted. */
export async function allNouns(): Promise<NounVerbs[]> {
  const known = Object.entries(nouns).filter(([, { hidden }]) => !hidden).sort(([a], [b]) => a < b ? -1 : 1);
  return await Promise.all(known.map(async ([noun, { summary, load }]) => {
    const { verbs } = await load();
    return {
      noun,
      summary,
      spellings: Object.keys(spellings).filter((word) => spellings[word] === noun),
      verbs: verbs.filter(({ words }) => words.split(" ")[0] === noun).sort((a, b) => a.words < b.words ? -1 : 1),
    };
  }));
}

/** `lido storage create [options] <pool> ...` */
export function synopsis({ words, args }: Verb): string {
  return ["lido", words, "[options]", ...args.map(argumentSyntax)].join(" ");
}

/** Other words for the same verb: of the verb's own, and of its first word. */
export function aliasesOf({ words, aliases = [] }: Verb, spellings: readonly string[]): string[] {
  const respelled = spellings.map((word) => [word, ...words.split(" ").slice(1)].join(" "));
  return [...new Set([...aliases, ...respelled])].sort();
}

/** `-f, --format <format>` */
export function optionSyntax(key: string, { short, value }: Flag): string {
  return `${short === undefined ? "" : `-${short}, `}--${flagName(key)}${value === undefined ? "" : ` <${value}>`}`;
}

/** Those that help shows, in the order of their long names. */
export function byName(flags: readonly [string, Flag][]): [string, Flag][] {
  return flags.filter(([, { hidden }]) => !hidden).toSorted(([left], [right]) =>
    flagName(left) < flagName(right) ? -1 : 1
  );
}

/** What there is to say of an option beside its summary. */
export function optionNotes({ many, values = [], summary }: Flag): string {
  const notes = [
    values.every((value) => summary.includes(value)) ? "" : `one of ${values.join(", ")}`,
    many === undefined ? "" : "may be given several times",
  ].filter(Boolean);
  return notes.length === 0 ? "" : ` (${notes.join("; ")})`;
}

function options({ flags }: Verb): string[] {
  const rows = byName(Object.entries(flags)).map(([key, flag]) => [
    code(optionSyntax(key, flag)),
    flag.initial ? code(flag.initial) : "",
    flag.summary + optionNotes(flag),
  ]);
  return rows.length === 0 ? [] : [table(["Option", "Default", "What it does"], rows)];
}

function verbBlocks(verb: Verb, spellings: readonly string[]): string[] {
  const aliases = aliasesOf(verb, spellings);
  return [
    `${verb.summary}.`,
    codeBlock(synopsis(verb)),
    ...(aliases.length > 0 ? [paragraph(`Also: ${aliases.map((words) => code(`lido ${words}`)).join(", ")}.`)] : []),
    ...options(verb),
    ...(verb.details === undefined ? [] : [codeBlock(verb.details)]),
  ];
}

/** The anchor of a heading on a page, as GitHub and others make it. */
const anchor = (heading: string) => `#${heading.replaceAll(" ", "-")}`;

function nounBlocks({ noun, summary, spellings, verbs }: NounVerbs): string[] {
  const [only] = verbs;
  if (verbs.length === 1 && only!.words === noun) return [`## ${noun}`, ...verbBlocks(only!, spellings)];
  const rows = verbs.map(({ words, summary }) => [`[\`lido ${words}\`](${anchor(words)})`, summary]);
  return [
    `## ${noun}`,
    `${groupSummaries[noun] ?? summary}.`,
    table(["Command", "What it does"], rows),
    ...verbs.flatMap((verb) => [`### ${verb.words}`, ...verbBlocks(verb, spellings)]),
  ];
}

export async function commandsPage(): Promise<string> {
  const all = await allNouns();
  return page(
    "Commands",
    paragraph(
      "Every command of `lido`, as its own `--help` has it; its man pages have the same. In a synopsis `<name>` has to be " +
        "given, `[name]` may be left out, and dots stand for more of the same. Each command also takes " +
        `\`${optionSyntax("quiet", quietFlag)}\` (${quietFlag.summary.toLowerCase()}) and \`-h, --help\`. ` +
        "The exit code is 0, or 1 for an error, whose text is one line on stderr; that of `exec` is the command's.",
    ),
    table(
      ["Command", "What it does"],
      all.map(({ noun, summary }) => [`[\`lido ${noun}\`](${anchor(noun)})`, summary]),
    ),
    ...all.flatMap(nounBlocks),
  );
}
