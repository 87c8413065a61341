/** A daemon that is killed, or whose host fails, at the n-th point: before and after each host command, and at each step of the journal.
 *   LIDO_FAULT=kill:N | fail:N     LIDO_FAULT_START=1: counts from the start of the process, not from when it is ready */
import process from "node:process";
import { CommandError, type Host } from "../../drivers/host/host.ts";
import { createHost } from "../../drivers/host/real.ts";
import { startDaemon } from "../../server/main.ts";

const [mode, number] = (process.env.LIDO_FAULT ?? "none:0").split(":");
let left = Number(number);
let isArmed = process.env.LIDO_FAULT_START === "1";

function point(name: string): void {
  if (mode !== "kill" || !isArmed || --left !== 0) return;
  process.stderr.write(`killed: ${name}\n`);
  process.kill(process.pid, "SIGKILL");
}

/** A command that is to fail does nothing else. */
function mayFail(argv: readonly string[]): void {
  if (mode !== "fail" || !isArmed || --left !== 0) return;
  process.stderr.write(`failed: ${argv.join(" ")}\n`);
  throw new CommandError(argv, 1, "an injected failure");
}

/** Every method of `target` in `names` with a point before and after it. */
function watched<T extends object>(target: T, names: readonly (keyof T)[]): T {
  return new Proxy(target, {
    get(_, name) {
      const value = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      if (!names.includes(name as keyof T)) return value.bind(target);
      return async (...args: unknown[]) => {
        const text = `${String(name)} ${JSON.stringify(args[0])}`;
        point(`before ${text}`);
        mayFail([String(name), String(args[0])]);
        const result = await value.apply(target, args);
        point(`after ${text}`);
        return result;
      };
    },
  });
}

const real = createHost();
const host: Host = {
  ...real,
  run: async (argv, options) => {
    point(`before ${argv.join(" ")}`);
    mayFail(argv);
    const result = await real.run(argv, options);
    point(`after ${argv.join(" ")}`);
    return result;
  },
  pipe: (argv, options) => {
    point(`before ${argv.join(" ")}`);
    mayFail(argv);
    const { stdout, done } = real.pipe(argv, options);
    return { stdout, done: done.then(() => point(`after ${argv.join(" ")}`)) };
  },
  mounts: watched(real.mounts, ["mount", "bind", "unmount"]),
  loops: watched(real.loops, ["attach", "detach", "refresh"]),
};

const daemon = await startDaemon({ directory: process.env.LIDO_DIR!, logLevel: "info" }, { host, observe: point });
isArmed = true;
process.on("SIGTERM", () => void daemon.close());
await daemon.ended;
process.exit(0);
