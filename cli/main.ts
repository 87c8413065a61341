/** The command line. Kept small: a verb's code is loaded once the verb is known. */
import { Client } from "./client/client.ts";
import { ApiError, OutputError, reasonOf, UsageError } from "./client/errors.ts";
import { nouns, spellings } from "./nouns.ts";
import { Stdout } from "./output/stdout.ts";
import { findVerb, isQuiet, parse, type Parsed } from "./parse.ts";
import type { Io, Verb } from "./verb.ts";
import { version } from "./version.ts";

/** Prints an error on stderr at once. A failure is ignored: there is no other place to report it. */
function complain(text: string): void {
  console.error(text.endsWith("\n") ? text.slice(0, -1) : text);
}

function summaries(): Map<string, string> {
  return new Map(
    Object.entries(nouns).filter(([, { hidden }]) => !hidden).map(([name, { summary }]) => [name, summary]),
  );
}

/** Help for the program itself. */
async function topHelp(): Promise<string> {
  const { readWithCommander } = await import("./program.ts");
  return readWithCommander([], ["--help"], summaries()).help ?? "";
}

/** @throws {UsageError} For a verb of LXD that lido lacks. */
async function checkMissing(words: readonly string[]): Promise<void> {
  const { missingVerb } = await import("./missing.ts");
  const text = missingVerb(words);
  if (text !== undefined) throw new UsageError(text);
}

async function unknownCommand(words: readonly string[]): Promise<never> {
  await checkMissing(words);
  const [word = ""] = words;
  const { readWithCommander } = await import("./program.ts");
  readWithCommander([], [word], summaries());
  throw new UsageError(`Unknown command "${word}"`);
}

async function read(verbs: readonly Verb[], words: string[]): Promise<Parsed | { help: string }> {
  const found = findVerb(verbs, words);
  const parsed = found && parse(found.verb, found.rest);
  if (parsed !== undefined) return parsed;
  await checkMissing(words);
  const { readWithCommander } = await import("./program.ts");
  const outcome = readWithCommander(verbs, words);
  return outcome.parsed ?? { help: outcome.help ?? "" };
}

/** The runtime puts U+FFFD in place of bytes that are not UTF-8: the command would then work on another name than the given one.
 * @throws {UsageError} If it has. */
async function checkEncoding(): Promise<void> {
  const { readFileSync } = await import("node:fs");
  const words = readFileSync("/proc/self/cmdline");
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(words);
  } catch {
    const word = words.toString("utf8").split("\0").find((text) => text.includes("\uFFFD"));
    throw new UsageError(`Invalid argument "${word}": it is no UTF-8, as which the API carries it`);
  }
}

/** Whether our working directory was deleted before we started. @see scripts/start_anywhere.ts */
function isNowhere(): boolean {
  return /^\/proc\/\d+\/fdinfo$/.test(process.cwd());
}

/** An error's message; the runtime's message for a failed system call ("ENOENT: …, open 'x'") is put into plain words. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, path } = error as NodeJS.ErrnoException;
  if (code === undefined || !error.message.startsWith(`${code}: `)) return error.message || error.name;
  return path === undefined ? reasonOf(error) : `"${path}": ${reasonOf(error)}`;
}

/** Runs one command line.
 * @param io Its output and its daemon; default: the terminal and the local daemon.
 * @returns The exit code. */
export async function main(argv: readonly string[], io: Partial<Io> = {}): Promise<number> {
  const stdout = new Stdout();
  const code = await run(argv, { out: (text) => stdout.write(text), err: complain, ...io });
  return stdout.outcome(code, io.err ?? complain);
}

async function run(argv: readonly string[], io: Partial<Io> & Pick<Io, "out" | "err">): Promise<number> {
  const start = argv.findIndex((word) => !isQuiet(word));
  const words = start < 0 ? [] : argv.slice(start);
  const world: Io = { client: io.client ?? new Client(), quiet: start > 0, ...io };
  try {
    const [first = ""] = words;
    if (words.some((word) => word.includes("\uFFFD"))) await checkEncoding();
    if (first === "--version") {
      world.out(`${version}\n`);
      return 0;
    }
    if (first === "" || first === "help" || first === "--help" || first === "-h") {
      if (first !== "help" || words.length === 1) {
        world.out(await topHelp());
        return 0;
      }
      return await run([...words.slice(1), "--help"], world);
    }
    const name = spellings[first] ?? first;
    const noun = Object.hasOwn(nouns, name) ? nouns[name] : undefined;
    if (noun === undefined) return await unknownCommand(words);
    const { verbs } = await noun.load();
    const outcome = await read(verbs.filter((verb) => verb.words.split(" ")[0] === name), [name, ...words.slice(1)]);
    if ("help" in outcome) {
      world.out(outcome.help);
      return 0;
    }
    const quiet = world.quiet || outcome.quiet;
    return (await outcome.verb.run({ ...world, quiet }, outcome.args, outcome.flags as never)) ?? 0;
  } catch (error) {
    if (error instanceof OutputError && error.isUnread) return error.exitCode;
    // One line, so that scripts can read it; a host tool's message may have several.
    const text = textOf(error);
    const why = !(error instanceof ApiError) && /no such (file|directory)/.test(text) && isNowhere()
      ? "; the current working directory was deleted, and a name must be an absolute path"
      : "";
    const line = text.trim().replaceAll(/:\s*\n\s*- /g, ": ").replaceAll(/\s*\n\s*(- )?/g, "; ");
    world.err(`Error: ${line}${why}\n`);
    return 1;
  }
}

/** Runs the process's own command line and ends the process. */
export async function runMain(): Promise<never> {
  process.exit(await main(process.argv.slice(2)));
}

if (import.meta.main) await runMain();
