/** `key=value` words, and the verbs of all things with a configuration: show, get, set, unset, edit. */
import type { Config, Devices, Operation } from "../api/types.ts";
import { UsageError } from "./client/errors.ts";
import { showNotes } from "./output/notes.ts";
import { type Kind, ordered } from "./output/order.ts";
import { type Io, type Verb, verb, withArticle } from "./verb.ts";

/** @throws {UsageError} For a word without "=", which it names. */
export function settingsOf(words: readonly string[]): Config {
  return Object.fromEntries(words.map((word) => {
    const equals = word.indexOf("=");
    if (equals <= 0) throw new UsageError(`Bad key=value pair: "${word}"`);
    return [word.slice(0, equals), word.slice(equals + 1)];
  }));
}

/** As in lxc: `key=value...`, or the older `key value`; a single `-` as value is read from stdin. */
async function settingsOrPair(words: readonly string[]): Promise<Config> {
  if (words.length === 2 && !words[0]!.includes("=")) {
    return { [words[0]!]: words[1] === "-" ? (await readInput()).trimEnd() : words[1]! };
  }
  return settingsOf(words);
}

export async function readInput(): Promise<string> {
  const { readText } = await import("./exec/descriptors.ts");
  return await readText();
}

/** @returns The YAML map on stdin. @throws {UsageError} If it is not YAML, or not a map. */
export async function readYaml(): Promise<Record<string, unknown>> {
  const { isTerminal } = await import("./terminal/is_terminal.ts");
  if (await isTerminal(0)) throw new UsageError("Nothing to read: give the YAML on stdin");
  const { yamlMap } = await import("./yaml_input.ts");
  return await yamlMap(await readInput());
}

export async function showYaml(io: Io, kind: Kind, thing: object): Promise<void> {
  const { yaml } = await import("./output/yaml.ts");
  io.out(yaml(ordered(kind, thing)));
}

interface Thing {
  readonly config: Config;
  readonly devices?: Devices;
}

export interface Configurable {
  /** The first words of the verbs, as in `storage volume`. */
  readonly words: string;
  readonly args: readonly string[];
  /** For the help, e.g. "storage pool". */
  readonly noun: string;
  /** Depends on the arguments where they may name different kinds. */
  readonly kind: Kind | ((args: readonly string[]) => Kind);
  /** The fields that a PUT accepts. */
  readonly writable: readonly string[];
  readonly path: (args: readonly string[]) => string;
  /** Fields that `show` leaves out, as lxc does. */
  readonly hidden?: readonly string[];
}

/** Changes the thing as it was read: the ETag prevents two concurrent changes from undoing one another. */
export async function change(
  io: Io,
  what: Configurable,
  args: readonly string[],
  alter: (thing: Thing) => Record<string, unknown>,
  query = "",
): Promise<void> {
  const { client } = io;
  const path = what.path(args);
  const { value, etag } = await client.getTagged<Thing>(path);
  const body = { ...pick(value, what.writable), ...alter(value) };
  await put(io, path + query, body, etag);
}

/** Replaces settings, and shows the daemon's notes. */
async function put(io: Io, path: string, body: unknown, etag: string | undefined): Promise<void> {
  const { type, metadata } = await io.client.request("PUT", path, body, etag);
  showNotes(io, type === "async" ? (await io.client.waitFor(metadata as Operation)).metadata : metadata);
}

export function pick(thing: object, keys: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(thing).filter(([key]) => keys.includes(key)));
}

/** The content for the editor: the fields that can be changed. */
async function editable(
  { kind, noun, writable }: Configurable,
  given: readonly string[],
  thing: object,
): Promise<string> {
  const { yaml } = await import("./output/yaml.ts");
  const name = given.length === 0 ? "" : ` "${given.join("/")}"`;
  const fields = ordered(typeof kind === "function" ? kind(given) : kind, pick(thing, writable));
  return `### The configuration of the ${noun}${name} as YAML.
### Lines that begin with # are ignored. Save and leave the editor to apply; an unchanged file changes nothing.
${yaml(fields)}`;
}

export function settingVerbs(what: Configurable): Verb[] {
  const { words, args, noun, kind } = what;
  const count = args.length;
  return [
    verb({
      words: `${words} show`,
      args,
      flags: {},
      summary: `Show the configuration of ${withArticle(noun)}`,
      async run(io, given) {
        const thing = await io.client.get<Record<string, unknown>>(what.path(given));
        const shownAs = typeof kind === "function" ? kind(given) : kind;
        await showYaml(io, shownAs, pick(thing, Object.keys(thing).filter((key) => !what.hidden?.includes(key))));
      },
    }),
    verb({
      words: `${words} get`,
      args: [...args, "key"],
      flags: {},
      summary: `Get a configuration key of ${withArticle(noun)}`,
      async run(io, given) {
        const { config } = await io.client.get<Thing>(what.path(given));
        const value = config[given[count]!];
        io.out(`${value ?? ""}\n`);
      },
    }),
    verb({
      words: `${words} set`,
      args: [...args, "key=value+"],
      flags: {},
      summary: `Set configuration keys of ${withArticle(noun)}`,
      async run(io, given) {
        const settings = await settingsOrPair(given.slice(count));
        await change(io, what, given, ({ config }) => ({ config: { ...config, ...settings } }));
      },
    }),
    verb({
      words: `${words} unset`,
      args: [...args, "key"],
      flags: {},
      summary: `Unset a configuration key of ${withArticle(noun)}`,
      async run(io, given) {
        const key = given[count]!;
        await change(io, what, given, ({ config }) => {
          if (!(key in config)) throw new UsageError(`Can't unset key "${key}", it's not currently set`);
          return { config: Object.fromEntries(Object.entries(config).filter(([name]) => name !== key)) };
        });
      },
    }),
    verb({
      words: `${words} edit`,
      args,
      flags: {},
      summary: `Edit the configuration of ${withArticle(noun)} as YAML, in $EDITOR or from stdin`,
      details: `On a terminal $VISUAL or $EDITOR is opened; a pipe or a file on stdin is taken as it is:
  lido ${words} show ... | sed ... | lido ${words} edit ...
`,
      async run(io, given) {
        const path = what.path(given);
        const { value, etag } = await io.client.getTagged<object>(path);
        const replace = async (body: Record<string, unknown>) => await put(io, path, body, etag);
        const { isTerminal } = await import("./terminal/is_terminal.ts");
        if (!await isTerminal(0)) return await replace(pick(await readYaml(), what.writable));
        const { edit } = await import("./edit.ts");
        const { yamlMap } = await import("./yaml_input.ts");
        await edit(io, await editable(what, given, value), async (text) => {
          const body = await yamlMap(text);
          const unknown = Object.keys(body).find((key) => !what.writable.includes(key));
          if (unknown !== undefined) {
            throw new UsageError(`Unknown field "${unknown}": ${what.writable.join(", ")} are allowed`);
          }
          await replace(body);
        });
      },
    }),
  ];
}
