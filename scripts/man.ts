/** Writes the man pages, `lido-VERB(1)`, from the tables that `--help` is made from: `npm run man`; the build does it too.
 *   man.ts [DIRECTORY]     dist/man when absent */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { version } from "../api/version.ts";
import { argumentSyntax, groupSummaries } from "../cli/program.ts";
import { type Flag, quietFlag, type Verb } from "../cli/verb.ts";
import { aliasesOf, allNouns, byName, type NounVerbs, optionNotes, optionSyntax } from "./reference/commands.ts";
import { example, heading, italic, list, manPage, paragraph, reference, text } from "./reference/roff.ts";

const pageName = (words: string) => ["lido", ...words.split(" ")].filter(Boolean).join("-");
const seeAlso = (pages: readonly string[]) => [heading("SEE ALSO"), pages.map(reference).join(",\n")];

function verbPage(verb: Verb, { spellings }: NounVerbs): string {
  const aliases = aliasesOf(verb, spellings).map((words) => `lido ${words}`);
  const flags: [string, Flag][] = [
    ...Object.entries(verb.flags),
    ["quiet", quietFlag],
    ["help", { short: "h", summary: "Show help" }],
  ];
  const options = byName(flags).map(([key, flag]): [string, string] => [
    optionSyntax(key, flag),
    `${flag.summary}${optionNotes(flag)}${flag.initial ? ` (default: ${flag.initial})` : ""}`,
  ]);
  const above = verb.words.split(" ").slice(0, -1).join(" ");
  return manPage(pageName(verb.words), verb.summary, version, [
    heading("SYNOPSIS"),
    synopsis(verb),
    ...(aliases.length > 0 ? [heading("ALSO"), text(aliases.join(", "))] : []),
    heading("DESCRIPTION"),
    paragraph(`${verb.summary}.`),
    ...(verb.details === undefined ? [] : [example(verb.details)]),
    heading("OPTIONS"),
    list(options),
    ...seeAlso([...new Set([pageName(above), "lido"])]),
  ]);
}

function synopsis({ words, args }: Verb): string {
  return [
    `${text(`lido ${words}`)} [${italic("options")}]`,
    ...args.map((name) => text(argumentSyntax(name))),
  ].join(" ");
}

/** What words that only begin a verb lead to. */
function groupPage(words: string, summary: string, verbs: readonly Verb[]): string {
  return manPage(pageName(words), summary, version, [
    heading("SYNOPSIS"),
    `${text(`lido ${words}`)} ${italic("command")} ...`,
    heading("COMMANDS"),
    list(verbs.map((verb) => [`lido ${verb.words}`, verb.summary])),
    ...seeAlso(["lido", ...verbs.map((verb) => pageName(verb.words))]),
  ]);
}

function topPage(all: readonly NounVerbs[]): string {
  return manPage("lido", "Storage pools, system containers and exec for this host", version, [
    heading("SYNOPSIS"),
    `${text("lido")} ${italic("command")} [${italic("options")}] ...`,
    heading("DESCRIPTION"),
    paragraph(
      "lido is daemon and client in one executable. It serves LXD's REST API on a unix socket and, where " +
        "core.https_address is set, over mutual TLS.",
    ),
    paragraph("`lido COMMAND --help` shows what the page of a command shows."),
    heading("COMMANDS"),
    list(all.map(({ noun, summary }) => [`lido ${noun}`, summary])),
    heading("ENVIRONMENT"),
    list([
      ["LIDO_DIR", "Directory of the daemon that is started or asked; /var/lib/lido when it is not set"],
      ["LIDO_SOCKET", "Socket of the daemon that is asked; unix.socket in LIDO_DIR when it is not set"],
    ]),
    heading("EXIT STATUS"),
    paragraph("0, or 1 for an error, which is one line on stderr. lido exec has the exit status of its command."),
    ...seeAlso(all.map(({ noun }) => pageName(noun))),
  ]);
}

/** @returns The text of each page, by the name of its file. */
export async function manPages(): Promise<Map<string, string>> {
  const all = await allNouns();
  const pages = new Map([["lido", topPage(all)]]);
  for (const noun of all) {
    for (const verb of noun.verbs) pages.set(pageName(verb.words), verbPage(verb, noun));
    const groups = new Set(
      noun.verbs.flatMap(({ words }) =>
        words.split(" ").slice(0, -1).map((_, end, all) => all.slice(0, end + 1).join(" "))
      ),
    );
    for (const group of groups) {
      const within = noun.verbs.filter(({ words }) => words.startsWith(`${group} `));
      pages.set(pageName(group), groupPage(group, groupSummaries[group] ?? noun.summary, within));
    }
  }
  return new Map([...pages].map(([name, text]) => [`${name}.1`, text]));
}

if (import.meta.main) {
  const directory = process.argv[2] ?? join(dirname(fileURLToPath(import.meta.url)), "../dist/man");
  mkdirSync(directory, { recursive: true });
  // Of commands that are there no more; the directory may be a system's.
  for (const name of readdirSync(directory)) if (/^lido(-[a-z-]+)?\.1$/.test(name)) rmSync(join(directory, name));
  for (const [name, text] of await manPages()) writeFileSync(join(directory, name), text);
}
