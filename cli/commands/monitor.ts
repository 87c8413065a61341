import type { Event } from "../../api/types.ts";
import { ConnectionError, UsageError } from "../client/errors.ts";
import { events } from "../client/events.ts";
import { verb } from "../verb.ts";

const levels = ["trace", "debug", "info", "warning", "error", "fatal"];

/** One line without the timestamp, as in `lxc monitor --pretty`. */
function inWords({ type, metadata }: Event): string {
  if (type === "operation") return `${metadata.description} ${metadata.id}: ${metadata.status}`;
  if (type === "lifecycle") return `${metadata.action ?? ""} ${metadata.source ?? ""}`;
  const context = Object.entries(metadata.context ?? {}).map(([name, value]) => `${name}=${quoted(String(value))}`);
  return [metadata.level, quoted(String(metadata.message)), ...context].join(" ");
}

/** Quotes a text that has blanks or control characters, so that each event stays one line. */
function quoted(text: string): string {
  return /^[!#-~]+$/.test(text) ? text : JSON.stringify(text);
}

export const verbs = [verb({
  words: "monitor",
  args: [],
  flags: {
    format: {
      short: "f",
      value: "format",
      values: ["json", "pretty", "yaml"],
      initial: "yaml",
      summary: "json, pretty or yaml",
    },
    type: {
      value: "type",
      values: ["lifecycle", "logging", "operation"],
      many: true,
      summary: "lifecycle, logging or operation; all when not given",
    },
    loglevel: {
      value: "level",
      values: levels,
      initial: "debug",
      summary: `Least level of logging events: ${levels.join(", ")}`,
    },
    pretty: { summary: "Pretty rendering, as --format=pretty" },
  },
  summary: "Show the daemon's events as they come",
  async run(io, _args, flags) {
    const format = flags.pretty ? "pretty" : flags.format;
    if (!["json", "pretty", "yaml"].includes(format)) {
      throw new UsageError(`Invalid format "${format}": json, pretty or yaml is allowed`);
    }
    const least = levels.indexOf(flags.loglevel);
    if (least < 0) {
      throw new UsageError(`Invalid log level "${flags.loglevel}": ${levels.join(", ")} are allowed`);
    }
    const { yaml } = await import("../output/yaml.ts");
    for await (const event of events(io.client, flags.type)) {
      if (event.type === "logging" && levels.indexOf(String(event.metadata.level)) < least) continue;
      const text = format === "json"
        ? JSON.stringify(event)
        : format === "yaml"
        ? `${yaml(event)}\n`
        : `${event.timestamp} ${event.type} ${inWords(event)}`;
      if (io.out(`${text}\n`) === false) return;
    }
    throw new ConnectionError(
      "Lost the connection to the lido daemon: it has ended, or this monitor was too slow for it",
    );
  },
})];
