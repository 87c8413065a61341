import { type DestinationStream, type Logger, pino } from "pino";
import type { Events } from "../events/events.ts";

/** The daemon's log: JSON lines on stderr from the given level on, and every level as `logging` events, as LXD. While `logging` has no listener,
 * messages below the level cost nothing: pino's methods for them are empty.
 * @param output Instead of stderr. */
export function createLog(level: string, events: Events, output: DestinationStream = stderr()): Logger {
  const least = pino.levels.values[level] ?? pino.levels.values.info!;
  const log = pino({
    level,
    base: null,
    hooks: {
      logMethod(args, method, number) {
        if (events.isListenedTo("logging")) events.publish("logging", loggingEvent(args, number));
        if (number >= least) method.apply(this, args);
      },
    },
  }, output);
  events.onInterest("logging", (isListenedTo) => log.level = isListenedTo && least > debugLevel ? "debug" : level);
  return log;
}

function stderr(): DestinationStream {
  const output = pino.destination({ fd: 2, sync: true });
  // A log that cannot be written (full disk, closed pipe) must not end the daemon.
  output.on("error", () => {});
  return output;
}

const debugLevel = pino.levels.values.debug!;
/** logrus's names, which LXD's client parses. */
const names: Readonly<Record<number, string>> = {
  10: "trace",
  20: "debug",
  30: "info",
  40: "warning",
  50: "error",
  60: "fatal",
};

/** @param args As a logger's method gets them: a text, or fields and a text. @returns LXD's form, whose fields are texts. */
function loggingEvent(args: readonly unknown[], level: number): Record<string, unknown> {
  const [first, second] = args;
  const fields = typeof first === "object" && first !== null ? Object.entries(first) : [];
  return {
    context: Object.fromEntries(fields.flatMap(([name, value]) => value === undefined ? [] : [[name, textOf(value)]])),
    level: names[level] ?? String(level),
    message: fields.length > 0 || typeof first === "object" ? String(second ?? "") : String(first),
  };
}

function textOf(value: unknown): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map(textOf).join(" ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
