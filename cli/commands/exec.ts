import { UsageError } from "../client/errors.ts";
import { verb } from "../verb.ts";

/** Largest user or group id that LXD accepts. */
const idMax = 4294967294;

function numericId(text: string, what: string): number {
  if (!/^\d+$/.test(text) || Number(text) > idMax) {
    throw new UsageError(`Invalid ${what} "${text}": must be a number from 0 to ${idMax}`);
  }
  return Number(text);
}

/** @returns Whether the session is interactive; undefined leaves the choice to the client.
 * @throws {UsageError} If the flags contradict each other. */
export function interactiveMode(flags: {
  mode: string;
  forceInteractive: boolean;
  forceNoninteractive: boolean;
  disableStdin: boolean;
}): boolean | undefined {
  if (flags.forceInteractive && flags.forceNoninteractive) {
    throw new UsageError("You can't pass -t and -T at the same time");
  }
  if (flags.mode !== "auto" && (flags.forceInteractive || flags.forceNoninteractive)) {
    throw new UsageError("You can't pass -t or -T at the same time as --mode");
  }
  if (flags.forceInteractive || flags.mode === "interactive") return true;
  if (flags.forceNoninteractive || flags.mode === "non-interactive" || flags.disableStdin) return false;
  if (flags.mode === "auto") return undefined;
  throw new UsageError(`Invalid mode "${flags.mode}": must be auto, interactive or non-interactive`);
}

/** `--env K=V` as a map; a name alone takes the value from the client's own environment, as in docker. */
export function environmentOf(settings: readonly string[]): Record<string, string> {
  const environment: Record<string, string> = {};
  if (process.env.TERM !== undefined) environment.TERM = process.env.TERM;
  for (const setting of settings) {
    const equals = setting.indexOf("=");
    if (equals <= 0) throw new UsageError(`Bad environment variable "${setting}": must be NAME=VALUE`);
    environment[setting.slice(0, equals)] = setting.slice(equals + 1);
  }
  return environment;
}

export const verbs = [verb({
  words: "exec",
  args: ["instance?", "command..."],
  optionsEndAfter: 2,
  flags: {
    cwd: { value: "path", initial: "", summary: "Directory to run the command in (default /root)" },
    disableStdin: { short: "n", summary: "Disable stdin (reads from /dev/null)" },
    env: { value: "name=value", many: true, summary: "Environment variable to set" },
    forceInteractive: { short: "t", summary: "Force pseudo-terminal allocation" },
    forceNoninteractive: { short: "T", summary: "Disable pseudo-terminal allocation" },
    mode: {
      value: "mode",
      values: ["auto", "interactive", "non-interactive"],
      initial: "auto",
      summary: "Terminal mode: auto, interactive or non-interactive",
    },
    user: { value: "user", initial: "0", summary: "User to run the command as, a number or a name" },
    group: { value: "group", summary: "Group to run the command as (default 0, or the named user's own)" },
    login: { summary: "Take home, shell, groups and environment from the user's entry in the instance" },
    waitOutput: { summary: "Wait until every process that holds stdout or stderr is gone, as ssh does" },
    detach: { summary: "Leave the command running and print the id of its session" },
    detachable: { summary: "Keep the command running if this client goes away" },
    attach: { value: "session", summary: "Come back to a session; what it printed last is shown again" },
    list: { summary: "List the sessions that can be attached to" },
    format: { short: "f", value: "format", initial: "table", summary: "Of --list: csv, json, table, yaml or compact" },
  },
  summary: "Execute commands in instances",
  details: `The command is executed directly, without a shell: for shell patterns run one, as in
  lido exec c1 -- sh -c "cd /tmp && pwd"
What follows the first word of the command belongs to it, options too; "--" before it is needed only if it begins
with a dash.

Interactive mode is taken when stdin and stdout are both terminals.
Stdin is read ahead of the command, as ssh does: in a loop that reads lines from it, give -n (or < /dev/null).
A session that was started with --detach or --detachable is left by Ctrl-a q, or by closing
the terminal, and come back to with --attach:
  lido exec --detach c1 -- make world
  lido exec --list
  lido exec --attach 8c1f0a2b3d4e
The exit code is the command's; 128+n if signal n ended it, 255 if the connection was lost.
`,
  async run(io, [instance, ...command], flags) {
    const interactive = interactiveMode(flags);
    if (flags.list || flags.attach !== undefined || flags.detach) {
      const sessions = await import("../exec/detached.ts");
      sessions.checkFlags(flags);
      if (flags.list) return await sessions.listSessions(io, flags.format, instance);
      if (flags.attach !== undefined) {
        if (instance !== undefined) throw new UsageError("--attach takes no instance: the session knows its own");
        return await (await import("../exec/run.ts")).runAttach(io.client, flags.attach, flags.disableStdin, io.err);
      }
    }
    if (instance === undefined || (command.length === 0 && !flags.login)) {
      throw new UsageError("Invalid number of arguments: lido exec <instance> [flags] [--] <command line>");
    }
    const extra: Record<string, unknown> = {};
    const byName = !/^\d+$/.test(flags.user);
    if (byName) extra["user-name"] = flags.user;
    if (flags.login) extra.login = true;
    if (flags.waitOutput) extra["wait-output"] = true;
    if (flags.detach || flags.detachable) extra.detachable = true;
    const request = {
      command,
      environment: environmentOf(flags.env),
      user: byName ? 0 : numericId(flags.user, "user"),
      group: flags.group === undefined ? 0 : numericId(flags.group, "group"),
      cwd: flags.cwd,
      extra,
    };
    if (byName && flags.group !== undefined) extra["group-set"] = true;
    if (flags.detach) {
      const { startDetached } = await import("../exec/detached.ts");
      return await startDetached(io, instance, { ...request, interactive: interactive ?? false });
    }
    const { runExec } = await import("../exec/run.ts");
    return await runExec(io.client, instance, { interactive, noStdin: flags.disableStdin, request }, io.err);
  },
})];
