import { readFileSync } from "node:fs";
import { allPids, endProcesses } from "../process/end_processes.ts";
import type { Poller } from "../poll/poll.ts";

/** Host tools left by a killed daemon. They continue: cp and rm would work on what the next daemon rolls back, and keep its pools busy. So each
 * tool, and all that it starts, has a mark in its environment, by which the next daemon of the same directory recognises it and ends it first.
 *
 * PR_SET_PDEATHSIG would end a tool at once, but not the processes that it starts, and also when only the thread that started it ends; a cgroup needs
 * a writable hierarchy. */

const variable = "LIDO_TOOL";
/** A tool that waits for a device which does not answer cannot be killed until it does; then it does no more work. */
const timeoutMs = 30_000;
/** Tools that change their own metadata in several steps of milliseconds: killed between two, they leave devices suspended. */
const finishing = /^(lvm|(lv|vg|pv)[a-z]+)$/;
const finishMs = 60_000;

/** @param directory The daemon's. @param argv The tool's. @returns Variables to add to its environment. */
export function markOf(directory: string, argv: readonly string[]): Record<string, string> {
  return { [variable]: `${finishing.test(argv[0]!) ? "finish" : "end"} ${sessionOf("self")} ${directory}` };
}

/** Ends the tools of an earlier daemon, or waits for those that must finish. Called by the only daemon of a directory, before it starts any.
 * @returns The command lines of the tools found, and the pids of those that have not ended. */
export async function endLeftTools(
  poller: Poller,
  directory: string,
): Promise<{ readonly found: readonly string[]; readonly left: readonly number[] }> {
  const found = new Map<number, string>();
  const list = (kind: string) => () => {
    const pids = allPids().filter((pid) => isTool(pid, kind, directory));
    for (const pid of pids) {
      const line = read(pid, "cmdline").split("\0").join(" ").trim();
      if (line !== "") found.set(pid, line); // an empty one has just ended
    }
    return pids;
  };
  const left = await endProcesses(poller, list("end"), { timeoutMs });
  const unfinished = await endProcesses(poller, list("finish"), {
    graceMs: finishMs,
    timeoutMs: finishMs + timeoutMs,
  });
  return { found: [...found.values()], left: [...left, ...unfinished] };
}

function isTool(pid: number, kind: string, directory: string): boolean {
  if (!isTrusted(pid)) return false;
  const found = markOn(pid);
  return found?.kind === kind && found.directory === directory;
}

/** A process with a session of its own is no longer part of a tool, but a daemon that the tool has started, such as LVM's dmeventd.
 * @returns The daemon's directory and how to end its tool, from the process's environment; undefined for other processes. */
export function markOn(pid: number): { readonly kind: string; readonly directory: string } | undefined {
  const mark = read(pid, "environ").split("\0").find((one) => one.startsWith(`${variable}=`));
  if (mark === undefined) return undefined;
  const [kind, session, ...rest] = mark.slice(variable.length + 1).split(" ");
  return sessionOf(pid) === session ? { kind: kind!, directory: rest.join(" ") } : undefined;
}

/** Whether the process is root's and in no container. Others may put any mark into their environment, and the environment into a file that never
 * answers. A confined tool has a pid namespace of its own, and a session from outside of it; a container's processes have the container's sessions.
 * @see proc_pid_status(5), NSsid */
function isTrusted(pid: number): boolean {
  const status = read(pid, "status");
  const sessions = /^NSsid:\t(.*)$/m.exec(status)?.[1]?.split("\t") ?? [];
  if (!/^Uid:\t0\t/m.test(status)) return false;
  return sessions.length === 1 || (sessions.at(-1) === "0" && !/\/lido-[0-9a-f]{8}\//.test(read(pid, "cgroup")));
}

/** @see proc_pid_stat(5), field 6; the second field may contain anything, so reading starts after the last parenthesis. */
function sessionOf(pid: number | "self"): string | undefined {
  const text = read(pid, "stat");
  return text.slice(text.lastIndexOf(")") + 2).split(" ")[3];
}

function read(pid: number | "self", file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    return ""; // it has ended
  }
}
