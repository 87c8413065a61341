/** The verbs as commander commands: for help, for errors with a suggestion, and for all that the fast parser leaves. */
import { Command, Option } from "@commander-js/extra-typings";
import { UsageError } from "./client/errors.ts";
import { type Flag, flagName, quietFlag, type Verb } from "./verb.ts";
import type { Parsed } from "./parse.ts";

export interface Summary {
  summary: string;
}

/** Converts argument names: `name?` and `name...` are optional for commander, `name+` is `<name...>`. */
export function argumentSyntax(name: string): string {
  if (name.endsWith("?")) return `[${name.slice(0, -1)}]`;
  if (name.endsWith("...")) return `[${name}]`;
  return name.endsWith("+") ? `<${name.slice(0, -1)}...>` : `<${name}>`;
}

function option(key: string, flag: Flag): Option {
  const value = flag.value === undefined ? "" : ` <${flag.value}>`;
  const made = new Option(`${flag.short ? `-${flag.short}, ` : ""}--${flagName(key)}${value}`, flag.summary);
  if (flag.hidden) made.hideHelp();
  if (flag.many) {
    made.argParser((given: string, before: string[] | undefined) => [...before ?? [], given]).default([], "none");
  } else if (flag.initial) { // the summary says what an empty value means
    made.default(flag.initial);
  }
  return made;
}

/** Commander's message in the form of all other errors. */
function plain(text: string): string {
  const message = text.trim().replace(/^error: /, "").replace(/\n\((Did you mean .*)\)$/s, ". $1");
  return message.charAt(0).toUpperCase() + message.slice(1);
}

export interface Outcome {
  parsed?: Parsed;
  /** The help text, if it was requested. */
  help?: string;
}

/** Reads a command line with commander.
 * @throws {UsageError} If it is wrong, with commander's reason. */
export function readWithCommander(
  verbs: readonly Verb[],
  words: readonly string[],
  top?: Map<string, string>,
): Outcome {
  const outcome: Outcome = {};
  let help = "";
  let failure = "";
  const configure = <T extends Command>(command: T): T => {
    command.exitOverride();
    command.configureOutput({ writeOut: (text) => help += text, writeErr: (text) => failure += text });
    command.helpOption("-h, --help", "Show help").helpCommand("help [command]", "Show help for a command");
    return command;
  };
  const root = configure(new Command("lido"));
  root.description("Storage pools, system containers and exec for this host").option("--version", "Show the version")
    .addOption(option("quiet", quietFlag));
  if (top !== undefined) { for (const [name, summary] of top) configure(root.command(name)).description(summary); }
  const groups = new Map<string, Command>([["", root as Command]]);
  const groupFor = (path: string[]): Command => {
    const key = path.join(" ");
    const known = groups.get(key);
    if (known !== undefined) return known;
    const parent = groupFor(path.slice(0, -1));
    const made = configure(parent.command(path.at(-1) ?? "")) as unknown as Command;
    made.description(groupSummaries[key] ?? "");
    groups.set(key, made);
    return made;
  };
  for (const verb of top === undefined ? verbs : []) {
    const path = verb.words.split(" ");
    const last = path.pop() ?? "";
    const command = configure(groupFor(path).command(last)).description(verb.summary);
    // Only groups have a help command: a verb's first word is an argument.
    command.helpCommand(false);
    for (const alias of verb.aliases ?? []) {
      const spelling = alias.split(" ");
      if (spelling.slice(0, -1).join(" ") === path.join(" ")) command.alias(spelling.at(-1) ?? "");
    }
    for (const name of verb.args) command.argument(argumentSyntax(name));
    for (const [key, flag] of Object.entries(verb.flags)) command.addOption(option(key, flag));
    command.addOption(option("quiet", quietFlag));
    if (verb.details !== undefined) command.addHelpText("after", `\n${verb.details}`);
    command.action((...given: unknown[]) => {
      const flags: Record<string, unknown> = {};
      const options = command.opts() as Record<string, unknown>;
      for (const [key, flag] of Object.entries(verb.flags)) {
        flags[key] = options[key] ?? (flag.value === undefined ? false : flag.initial);
      }
      const args = given.slice(0, verb.args.length).flat().filter((value): value is string =>
        typeof value === "string"
      );
      outcome.parsed = { verb, args, flags, quiet: options.quiet === true };
    });
  }
  try {
    root.parse([...words], { from: "user" });
  } catch (error) {
    const code = (error as { code?: string }).code ?? "";
    if (code === "commander.helpDisplayed" || code === "commander.help") return { help: help || failure };
    if (!code.startsWith("commander.")) throw error;
    throw new UsageError(plain(failure || (error as Error).message));
  }
  if (outcome.parsed === undefined) return { help: help || root.helpInformation() };
  return outcome;
}

/** Summaries of words that only begin a verb. */
export const groupSummaries: Record<string, string> = {
  "storage": "Manage storage pools and volumes",
  "storage volume": "Manage storage volumes",
  "storage volume file": "Manage the files of custom volumes",
  "image": "Manage images",
  "image alias": "Manage image aliases",
  "profile": "Manage profiles",
  "profile device": "Manage the devices of a profile",
  "config": "Manage instance and server configuration",
  "config device": "Manage the devices of an instance",
  "config trust": "Manage the clients that are trusted over the network",
  "operation": "List, show and cancel background operations",
  "admin": "Set up and look after the daemon",
};
