/** A verb of the command line as data. The fast parser (parse.ts) and commander (program.ts: help, errors, completion)
 * both read it, because loading commander takes longer than the request to the daemon (11 of 28 ms, measured). */
import type { Client } from "./client/client.ts";

export interface Flag {
  short?: string;
  /** Name of the flag's value in the help; absent means that the flag is a switch. */
  value?: string;
  /** The flag may be given several times. */
  many?: true;
  initial?: string;
  /** For internal use: left out of the help. */
  hidden?: true;
  /** The allowed values, where they can be listed; for completion. */
  values?: readonly string[];
  summary: string;
}
export type FlagTable = Readonly<Record<string, Flag>>;

/** A verb's flags: switches are booleans, values strings, repeated ones lists; names in camel case. */
export type Flags<T extends FlagTable> = {
  [K in keyof T]: T[K] extends { many: true } ? string[]
    : T[K] extends { initial: string } ? string
    : T[K] extends { value: string } ? string | undefined
    : boolean;
};

/** What a verb may use: client, output, settings. Tests pass their own. */
export interface Io {
  client: Client;
  /** Prints text. @returns False when printing fails now and from now on: a verb that runs without end
   * then ends; the others continue, and the exit code reports the failure. */
  out(text: string): boolean | void;
  err(text: string): void;
  /** Whether progress is hidden. */
  quiet: boolean;
}

export interface Verb<T extends FlagTable = FlagTable> {
  /** The command's words, as in `storage volume create`. */
  words: string;
  aliases?: readonly string[];
  /** Its arguments: `name` is required, `name?` optional, `name...` any number, `name+` at least one. */
  args: readonly string[];
  flags: T;
  /** Options are read only up to this many arguments: the rest belongs to the last argument, as in `exec c1 ls -la`. */
  optionsEndAfter?: number;
  summary: string;
  /** Further text of the help. */
  details?: string;
  /** @returns The exit code; nothing means 0. */
  run(io: Io, args: string[], flags: Flags<T>): Promise<number | void>;
}

/** The switch that every verb has, before or after its words. */
export const quietFlag = { short: "q", summary: "Show no progress and no result in words" } as const;

/** Declares a verb with its flags' types inferred. */
export function verb<const T extends FlagTable>(definition: Verb<T>): Verb {
  return definition as unknown as Verb;
}

/** `forceInteractive` is `--force-interactive` on the command line. */
export function flagName(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** "an instance", "a profile"; for texts of verbs that several nouns share. */
export function withArticle(noun: string): string {
  return `${/^[aeiou]/.test(noun) ? "an" : "a"} ${noun}`;
}
