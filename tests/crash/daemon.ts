/** A daemon that is cut off at the n-th point: before and after each host command, and at each step of the journal. What is to happen stands in
 * the file `$LIDO_DIR.fault`, which is read at each point, so that one daemon can be told several times:
 *   kill N   the daemon is killed    fail N   the host command fails    cut N   it says so in $LIDO_CUT_FILE and stands still, for the host to
 *                                                                               cut off the whole machine
 *   count    counts the points, into `$LIDO_DIR.fault.count`
 * A third word makes two alike different. */
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import process from "node:process";
import { CommandError, type Host } from "../../drivers/host/host.ts";
import { createHost } from "../../drivers/host/real.ts";
import { startDaemon } from "../../server/main.ts";

const file = `${process.env.LIDO_DIR}.fault`;
let fault = "";
let left = 0;
let count = 0;

/** @returns What is to happen now or later: the first word of the file. */
function mode(): string {
  let text = "";
  try {
    text = readFileSync(file, "utf8");
  } catch { /* nothing is to happen */ }
  if (text !== fault) {
    fault = text;
    left = Number(text.split(" ")[1] ?? 0);
    count = 0;
  }
  return text.split(" ")[0]!;
}

function point(name: string): void {
  switch (mode()) {
    case "kill":
      if (--left !== 0) return;
      process.stderr.write(`killed: ${name}\n`);
      process.kill(process.pid, "SIGKILL");
      break;
    case "cut":
      if (--left !== 0) return;
      // Whole from the first moment that the host can see it.
      writeFileSync(`${process.env.LIDO_CUT_FILE}.new`, name);
      renameSync(`${process.env.LIDO_CUT_FILE}.new`, process.env.LIDO_CUT_FILE!);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      break;
    case "count":
      writeFileSync(`${file}.count`, String(++count));
  }
}

/** A command that is to fail does nothing else. */
function mayFail(argv: readonly string[]): void {
  if (mode() !== "fail" || --left !== 0) return;
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
  quotas: watched(real.quotas, ["assign", "adopt", "limit", "release"]),
};

const daemon = await startDaemon({ directory: process.env.LIDO_DIR!, logLevel: "info" }, { host, observe: point });
process.on("SIGTERM", () => void daemon.close());
await daemon.ended;
process.exit(0);
