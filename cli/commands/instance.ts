import type { Instance } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { UsageError } from "../client/errors.ts";
import { changeWithProgress } from "../output/progress.ts";
import { type Io, type Verb, verb } from "../verb.ts";

type Action = "start" | "stop" | "restart" | "freeze" | "unfreeze";

/** Does the same to several instances at once. @throws {Error} Naming each instance that failed, with the reason. */
export async function each(
  names: readonly string[],
  what: string,
  work: (name: string) => Promise<void>,
): Promise<void> {
  const outcomes = await Promise.allSettled(names.map(work));
  const failures = outcomes.flatMap((outcome, index) =>
    outcome.status === "rejected" ? [{ name: names[index]!, error: outcome.reason as Error }] : []
  );
  if (failures.length === 0) return;
  if (names.length === 1) throw failures[0]!.error;
  const reasons = failures.map(({ name, error }) => `${name}: ${error.message}`).join("; ");
  throw new Error(`Some instances failed to ${what}: ${reasons}`);
}

async function chosen(io: Io, names: readonly string[], isAll: boolean, action: Action): Promise<string[]> {
  if (isAll && names.length > 0) throw new UsageError("Both --all and instance name given");
  if (!isAll && names.length === 0) throw new UsageError("Must supply instance name for: lido " + action);
  if (!isAll) return [...names];
  const instances = await io.client.get<Instance[]>("/1.0/instances?recursion=1");
  const isDue = { start: /Stopped/, stop: /Running|Frozen/, restart: /Running/, freeze: /Running/, unfreeze: /Frozen/ };
  return instances.filter(({ status }) => isDue[action].test(status)).map(({ name }) => name);
}

export async function setState(
  io: Io,
  name: string,
  action: Action,
  options: { force?: boolean; timeout?: number } = {},
): Promise<void> {
  const { force = false, timeout = -1 } = options;
  await changeWithProgress(io, "PUT", url`/1.0/instances/${name}/state`, { action, force, timeout });
}

/** @returns The exit code of the client. */
export async function attachConsole(io: Io, name: string): Promise<number> {
  const { runConsole } = await import("../exec/console.ts");
  return await runConsole(io.client, name, "console", io.err);
}

function secondsOf(text: string): number {
  if (!/^-?\d{1,7}$/.test(text)) throw new UsageError(`Invalid timeout "${text}": must be a number of seconds`);
  return Number(text);
}

const all = { summary: "Run against all instances" };
const force = { short: "f", summary: "Kill it: its processes get no chance to end" };
export const console = { summary: "Attach to the console as soon as it runs; Ctrl-a q detaches" };
const timeout = {
  value: "seconds",
  initial: "-1",
  summary: "How long a clean end may take; 0 kills it at once, -1 waits for ten minutes",
};

export const verbs: Verb[] = [
  verb({
    words: "start",
    args: ["instance..."],
    flags: { all, console },
    summary: "Start instances",
    details:
      `An instance is started when its init handles the signals that control it, which takes milliseconds; when there is no sign of that
(a script as init), after a second. An init that ends before fails the start, which says its exit code, the last lines of its console
and the likely cause; one that ends with exit code 0 or switches itself off is only noted. "lido info" says it again.
`,
    async run(io, names, flags) {
      if (flags.console && flags.all) throw new UsageError("--console can't be used with --all");
      if (flags.console && names.length !== 1) throw new UsageError("--console only works with a single instance");
      await each(await chosen(io, names, flags.all, "start"), "start", async (name) => {
        // `start` of a paused instance continues it.
        const { status } = await io.client.get<Instance>(url`/1.0/instances/${name}`);
        await setState(io, name, status === "Frozen" ? "unfreeze" : "start");
      });
      if (flags.console) return await attachConsole(io, names[0]!);
    },
  }),
  verb({
    words: "stop",
    args: ["instance..."],
    flags: { all, force, timeout },
    summary: "Stop instances",
    async run(io, names, flags) {
      const options = { force: flags.force, timeout: secondsOf(flags.timeout) };
      await each(await chosen(io, names, flags.all, "stop"), "stop", (name) => setState(io, name, "stop", options));
    },
  }),
  verb({
    words: "restart",
    args: ["instance..."],
    flags: { all, force, timeout },
    summary: "Restart instances",
    async run(io, names, flags) {
      const options = { force: flags.force, timeout: secondsOf(flags.timeout) };
      const due = await chosen(io, names, flags.all, "restart");
      await each(due, "restart", (name) => setState(io, name, "restart", options));
    },
  }),
  verb({
    words: "pause",
    aliases: ["freeze"],
    args: ["instance..."],
    flags: { all },
    summary: "Freeze instances",
    async run(io, names, flags) {
      await each(await chosen(io, names, flags.all, "freeze"), "pause", (name) => setState(io, name, "freeze"));
    },
  }),
  verb({
    words: "delete",
    aliases: ["rm"],
    args: ["instance+"],
    flags: { force: { short: "f", summary: "Delete running instances too" } },
    summary: "Delete instances and snapshots",
    async run(io, names, flags) {
      await each(names, "delete", async (name) => {
        const [owner = "", snapshot] = name.split("/");
        const path = url`/1.0/instances/${owner}`;
        if (snapshot !== undefined) {
          await io.client.change("DELETE", `${path}${url`/snapshots/${snapshot}`}`);
          return;
        }
        const { status, ephemeral } = await io.client.get<Instance>(path);
        if (status !== "Stopped") {
          if (!flags.force) {
            throw new UsageError("The instance is currently running, stop it first or pass --force");
          }
          await setState(io, name, "stop", { force: true });
          if (ephemeral) return;
        }
        await io.client.change("DELETE", path);
      });
    },
  }),
];
