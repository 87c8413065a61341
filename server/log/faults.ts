import type { Logger } from "pino";
import { describeFailure } from "./failure.ts";

/** Redirects into the log what would be printed beside it: console output of libraries, and uncaught errors. After an uncaught error the daemon's
 * state is not known: it ends, as it would anyway, and containers keep running.
 * @param exit Ends the process. */
export function logFaults(log: Logger, exit: (code: number) => void = (code) => process.exit(code)): void {
  const end = (error: unknown) => {
    log.fatal(describeFailure(error), "the daemon ends by a fault of its own");
    exit(1);
  };
  process.on("uncaughtException", end);
  process.on("unhandledRejection", end);
  for (const [method, level] of [["error", "error"], ["warn", "warn"], ["info", "debug"], ["log", "debug"]] as const) {
    console[method] = (...args: unknown[]) => {
      const failure = args.find((each) => each instanceof Error);
      const text = args.filter((each) => each !== failure).map(String).join(" ");
      log[level](failure === undefined ? {} : describeFailure(failure), text || "printed by a library");
    };
  }
}
