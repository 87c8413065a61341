import { UsageError } from "../client/errors.ts";
import { events } from "../client/events.ts";
import { verb } from "../verb.ts";

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
    pretty: { summary: "Pretty rendering, as --format=pretty" },
  },
  summary: "Show the daemon's events as they come",
  async run(io, _args, flags) {
    const format = flags.pretty ? "pretty" : flags.format;
    if (!["json", "pretty", "yaml"].includes(format)) {
      throw new UsageError(`Invalid format "${format}": json, pretty or yaml is allowed`);
    }
    const { yaml } = await import("../output/yaml.ts");
    for await (const event of events(io.client, flags.type)) {
      if (format === "json") io.out(`${JSON.stringify(event)}\n`);
      else if (format === "yaml") io.out(`${yaml(event)}\n\n`);
      else {
        const { action, source, description, status, id } = event.metadata as Record<string, unknown>;
        const what = event.type === "operation" ? `${description} ${id}: ${status}` : `${action ?? ""} ${source ?? ""}`;
        io.out(`${event.timestamp} ${event.type} ${what}\n`);
      }
    }
  },
})];
