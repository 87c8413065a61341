/** The daemon of the crash tests: its host commands, mounts and loop devices have points, as its calls of the file system (build.ts). */
import process from "node:process";
import { CommandError, type ConfinedTools, type Host } from "../../drivers/host/host.ts";
import { createHost } from "../../drivers/host/real.ts";
import { startDaemon } from "../../server/main.ts";
import { change, isToFail, isTurnOf, onCancel, point } from "./points.ts";

/** Time limit of a command that hangs. */
const hangMs = 100;
const failureOf = (argv: readonly string[]) => () => new CommandError(argv, 1, "an injected failure");

/** Adds a point before and after each of the methods `names` of `target`. */
function watched<T extends object>(target: T, names: readonly (keyof T)[]): T {
  return new Proxy(target, {
    get(_, name) {
      const value = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      if (!names.includes(name as keyof T)) return value.bind(target);
      return (...args: unknown[]) => {
        const what = [String(name), ...args.map((one) => String(one))];
        return change(what.join(" "), () => value.apply(target, args), failureOf(what));
      };
    },
  });
}

const real = createHost();

const pointed = (tools: ConfinedTools): ConfinedTools => ({
  run: (argv, options) =>
    change(argv.join(" "), () => {
      const isHanging = isTurnOf("hang", argv.join(" "));
      return isHanging
        ? real.confined({}).run(["sleep", "infinity"], { ...options, timeoutMs: hangMs })
        : tools.run(argv, options);
    }, failureOf(argv)),
  pipe: (argv, options) => {
    const what = argv.join(" ");
    point(`before ${what}`);
    if (isToFail(what)) throw failureOf(argv)();
    const { stdout, done } = tools.pipe(argv, options);
    const ended = done.then(() => {
      if (isTurnOf("late", what)) throw failureOf(argv)();
      point(`after ${what}`);
    });
    ended.catch(() => {}); // as in the real `pipe`: the caller may await `done` later
    return { stdout, done: ended };
  },
});

const host: Host = {
  ...real,
  ...pointed(real),
  confined: (confinement) => pointed(real.confined(confinement)),
  mounts: watched(real.mounts, ["mount", "bind", "unmount"]),
  loops: watched(real.loops, ["attach", "detach", "refresh"]),
  quotas: watched(real.quotas, ["assign", "adopt", "limit", "release"]),
};

if (process.argv.includes("--consoles")) {
  const { serveConsoles } = await import("../../drivers/runtime/console/server.ts");
  serveConsoles();
  process.exit(0);
}
if (process.argv.includes("--files")) {
  const { serveFiles } = await import("../../drivers/runtime/files/file_server.ts");
  serveFiles();
  process.exit(0);
}
const daemon = await startDaemon({ directory: process.env.LIDO_DIR!, logLevel: "info" }, { host, observe: point });
onCancel(() => {
  for (const operation of daemon.context.operations.list()) if (operation.view().may_cancel) operation.cancel();
});
process.on("SIGTERM", () => void daemon.close());
await daemon.ended;
process.exit(0);
