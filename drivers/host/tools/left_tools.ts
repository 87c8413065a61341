import { readFileSync } from "node:fs";
import { allPids, endProcesses } from "../process/end_processes.ts";
import type { Poller } from "../poll/poll.ts";

/** Host tools that a killed daemon was waiting for. They go on: cp and rm would work on what the next daemon rolls back, and keep its pools busy. So each
 * tool, and what it starts, has a mark in its environment, by which the next daemon of the same directory knows it and ends it first.
 *
 * PR_SET_PDEATHSIG would do so at once, but for the tool alone and not for what it starts, and when the thread ends that started it; a cgroup needs
 * one that can be written to. */

const variable = "LIDO_TOOL";
/** A tool that waits for a device which does not answer cannot be killed until it does; then it does nothing any more. */
const timeoutMs = 30_000;
/** What changes its own metadata in several steps, each of milliseconds: killed between two it leaves devices that are suspended. */
const finishing = /^(lvm|(lv|vg|pv)[a-z]+)$/;
const finishMs = 60_000;

/** @param directory Of the daemon. @param argv Of the tool. @returns What is added to its environment. */
export function markOf(directory: string, argv: readonly string[]): Record<string, string> {
  return { [variable]: `${finishing.test(argv[0]!) ? "finish" : "end"} ${sessionOf("self")} ${directory}` };
}

/** Ends the tools of an earlier daemon, or waits for them where they must come to their end. Called by the one daemon of a directory, before it starts any.
 * @returns The command lines of those that were there, and the pids of those that have not ended. */
export async function endLeftTools(
  poller: Poller,
  directory: string,
): Promise<{ readonly found: readonly string[]; readonly left: readonly number[] }> {
  const found = new Map<number, string>();
  const list = (kind: string) => () => {
    const pids = allPids().filter((pid) => isTool(pid, kind, directory));
    for (const pid of pids) {
      const line = read(pid, "cmdline").split("\0").join(" ").trim();
      if (line !== "") found.set(pid, line); // otherwise it has just ended
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

/** What has a session of its own is no part of a tool any more, but a daemon that the tool has started, such as LVM's dmeventd.
 * @returns The daemon's directory and what is done with its tool, as the process's environment says; undefined when it is none. */
export function markOn(pid: number): { readonly kind: string; readonly directory: string } | undefined {
  const mark = read(pid, "environ").split("\0").find((one) => one.startsWith(`${variable}=`));
  if (mark === undefined) return undefined;
  const [kind, session, ...rest] = mark.slice(variable.length + 1).split(" ");
  return sessionOf(pid) === session ? { kind: kind!, directory: rest.join(" ") } : undefined;
}

/** Whether it is root's and in no container. Others may put any mark into their environment, and the environment into a file that never answers. A tool
 * that is confined has a namespace of processes of its own, and a session from outside of it; a container's processes have sessions of the container.
 * @see proc_pid_status(5), NSsid */
function isTrusted(pid: number): boolean {
  const status = read(pid, "status");
  const sessions = /^NSsid:\t(.*)$/m.exec(status)?.[1]?.split("\t") ?? [];
  if (!/^Uid:\t0\t/m.test(status)) return false;
  return sessions.length === 1 || (sessions.at(-1) === "0" && !/\/lido-[0-9a-f]{8}\//.test(read(pid, "cgroup")));
}

/** @see proc_pid_stat(5), field 6; the second may hold anything, so it is read from behind the last parenthesis. */
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
