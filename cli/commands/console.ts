import { url } from "../client/client.ts";
import { UsageError } from "../client/errors.ts";
import { verb } from "../verb.ts";

export const verbs = [verb({
  words: "console",
  args: ["instance"],
  flags: {
    type: {
      short: "t",
      value: "type",
      values: ["console"],
      initial: "console",
      summary: "Type of the console: console",
    },
    showLog: { summary: "Show what the console printed last and end" },
  },
  summary: "Attach to instances' consoles",
  details: `The console is the instance's /dev/console: what its init and its services print there, and a login where
it runs one (press Enter to see it). Ctrl-a q detaches; Ctrl-a twice is one Ctrl-a for the console.
One client at a time can be attached. What was printed last, up to 128 KiB, is kept for --show-log, also
when the instance has ended.
`,
  async run(io, [instance = ""], flags) {
    if (flags.type !== "console" && flags.type !== "vga") {
      throw new UsageError(`Unknown output type "${flags.type}": must be console`);
    }
    if (flags.showLog) {
      if (flags.type !== "console") {
        throw new UsageError("The --show-log flag is only supported for by 'console' output type");
      }
      io.out(`\nConsole log:\n\n${await io.client.text(url`/1.0/instances/${instance}/console`)}\n`);
      return;
    }
    const { runConsole } = await import("../exec/console.ts");
    return await runConsole(io.client, instance, flags.type, io.err);
  },
})];
