/** How an init ended, and why: its exit code or signal, the last lines of its console, and the likely cause read from both. */

import { open } from "node:fs/promises";
import { constants } from "node:os";
import type { Config, InstanceExit } from "../../../api/types.ts";
import { whyNotExecuted } from "../../../drivers/runtime/not_executed.ts";
import type { ContainerEnd } from "../../../drivers/runtime/runtime.ts";

export type ExitStatus = ContainerEnd;

const tailBytesMax = 16 * 1024;
/** Limits on the lines that are shown; the console's log has all. */
const linesMax = 10, lineCharactersMax = 200;
/** Number of lines in an error's text. */
const shownLinesMax = 4;

/** reboot(2) in a pid namespace ends its init by SIGHUP when it is to boot again, by SIGINT when it is to halt. @see pid_namespaces(7) */
const rebootSignal = 1, haltSignal = 2;

export const isReboot = ({ signal }: ExitStatus): boolean => signal === rebootSignal;
/** Whether the end is no failure: exit code 0, or the container switched itself off. */
export const isClean = ({ code, signal }: ExitStatus): boolean => code === 0 || signal === haltSignal;

/** @returns As a part of a sentence, e.g. "with exit code 1". */
export function describeExit({ code, signal }: ExitStatus): string {
  if (code !== undefined) return `with exit code ${code}`;
  if (signal === undefined) return "with an exit code that is not known";
  if (signal === haltSignal) return "by switching itself off";
  if (signal === rebootSignal) return "to boot again";
  const name = Object.entries(constants.signals).find(([, number]) => number === signal)?.[0];
  return `by signal ${signal}${name ? ` (${name})` : ""}`;
}

/** Finds out how and why a container's init ended.
 * @param of.consoleLog Path of its console's log, which begins with its start.
 * @param of.root Its root filesystem on the host, to find why its init was not executed.
 * @param of.config Expanded. */
export async function examineExit(
  status: ExitStatus,
  of: { readonly consoleLog: string; readonly root: string; readonly init: readonly string[]; readonly config: Config },
): Promise<InstanceExit> {
  const lines = isClean(status) || isReboot(status) ? [] : await consoleTail(of.consoleLog);
  const cause = limitCause(status, lines, of.config) ?? causeOf(status, lines) ?? notExecuted(lines, of);
  return {
    at: new Date().toISOString(),
    exit_code: status.code ?? null,
    signal: status.signal ?? null,
    description: describeExit(status),
    cause: cause ?? "",
    console: lines,
  };
}

/** For an error's text, on one line: the cause, then the console's last lines. */
export function explainExit({ cause, console }: InstanceExit): string {
  const because = cause === "" ? "" : `: ${cause}`;
  const shown = console.slice(-shownLinesMax).join(" | ");
  return because + (shown === "" ? "" : `. Its console ends with: ${shown}`);
}

/** The last lines that a console printed, cleaned: no escape sequence, no control character, each of bounded length. */
export async function consoleTail(path: string): Promise<string[]> {
  const bytes = await lastBytes(path).catch(() => new Uint8Array());
  return cleanLines(new TextDecoder().decode(bytes));
}

/** @returns The last non-empty lines. */
export function cleanLines(text: string): string[] {
  const lines = text
    // deno-lint-ignore no-control-regex -- escape sequences: CSI with its parameters, OSC until its end, two characters otherwise
    .replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])/g, "")
    .split(/\r*\n/)
    // Text that a carriage return overwrites is not visible on a terminal either.
    .map((line) => line.replace(/^.*\r(?=.)/s, ""))
    // deno-lint-ignore no-control-regex -- control characters, and those that change the text's direction
    .map((line) => line.replace(/\t/g, " ").replace(/[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufffd]/g, "").trim())
    // The time that crun writes before its message on a terminal.
    .map((line) => line.replace(/^[0-9-]+T[0-9:.]+Z: (?=exec container process)/, ""))
    .filter((line) => line !== "");
  return lines.slice(-linesMax).map((line) =>
    line.length > lineCharactersMax ? `${line.slice(0, lineCharactersMax - 1)}…` : line
  );
}

async function lastBytes(path: string): Promise<Uint8Array> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    const bytes = new Uint8Array(Math.min(size, tailBytesMax));
    const { bytesRead } = await file.read(bytes, 0, bytes.length, size - bytes.length);
    return bytes.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** Messages of failing programs and their likely causes; the last console line that matches counts, and in it the first entry. */
const causes: readonly { readonly said: RegExp; readonly cause: (match: RegExpExecArray) => string }[] = [
  {
    said: /cgroup|control group/i,
    cause: () => "it was refused its control groups",
  },
  {
    said: /error while loading shared libraries: ([\w.+-]+)/,
    cause: (match) => `the library "${match[1]}" is missing in its image`,
  },
  {
    said: /Failed to mount ([\w/.-]+).*(?:not permitted|denied)/i,
    cause: (match) => `a mount that it needs was refused (${match[1]})`,
  },
  { said: /must be run as PID 1/i, cause: () => "it is no init: it runs as process 1 and does not know it" },
  { said: /No space left on device/i, cause: () => "its disk is full" },
  { said: /Read-only file system/i, cause: () => "a filesystem that it writes to is read-only" },
  {
    said: /Too many open files|No file descriptors available/i,
    cause: () => "it ran out of file descriptors or inotify instances",
  },
  { said: /Cannot allocate memory|Out of memory/i, cause: () => "it ran out of memory" },
  {
    said: /Permission denied|Operation not permitted/i,
    cause: () => "it was denied what it needs (owners or modes in its image, or a privilege)",
  },
];
const SIGILL = 4, SIGKILL = 9, SIGSEGV = 11, SIGSYS = 31;
const signalCauses: Readonly<Record<number, string>> = {
  [SIGILL]: "it uses instructions that this processor does not have",
  [SIGKILL]: "it was killed, by somebody or by the kernel for want of memory",
  [SIGSEGV]: "it crashed",
  [SIGSYS]: "it made a system call that containers may not make",
};
const shellNotFound = 127, shellNotExecutable = 126;

const noMoreProcesses = /fork|clone|thread|Resource temporarily unavailable/i;

/** A limit whose violation the kernel has counted, if the end fits it: the init may have run on for long and ended for another reason. */
function limitCause(
  { code, signal, limitsReached = [] }: ExitStatus,
  lines: readonly string[],
  config: Config,
): string | undefined {
  if (code === 0) return undefined;
  const said = (pattern: RegExp): boolean => lines.some((line) => pattern.test(line));
  const named = (key: string): string => config[key] ? `${key} is ${config[key]}` : `${key} is not set`;
  if (
    limitsReached.includes("memory") && (signal === SIGKILL || lines.length === 0 || said(/memory|killed/i))
  ) return `the kernel killed a process of it for want of memory (${named("limits.memory")})`;
  const isRefused = limitsReached.includes("processes") || config["limits.processes"];
  if (isRefused && said(noMoreProcesses) || limitsReached.includes("processes") && lines.length === 0) {
    return `it could start no more processes (${named("limits.processes")})`;
  }
  return undefined;
}

function causeOf(status: ExitStatus, lines: readonly string[]): string | undefined {
  const signalCause = status.signal === undefined ? undefined : signalCauses[status.signal];
  if (signalCause !== undefined) return signalCause;
  if (lines.some((line) => crunSays.test(line))) return undefined;
  for (const line of lines.toReversed()) {
    for (const { said, cause } of causes) {
      const match = said.exec(line);
      if (match) return cause(match);
    }
  }
  if (status.code === shellNotFound) return "a command that it runs is missing in its image";
  if (status.code === shellNotExecutable) return "a command that it runs cannot be executed";
  return undefined;
}

/** How crun's message begins when the kernel did not execute the init. */
const crunSays = /^exec container process/;

function notExecuted(
  lines: readonly string[],
  { root, init }: { readonly root: string; readonly init: readonly string[] },
): string | undefined {
  const said = lines.findLast((line) => crunSays.test(line));
  if (said === undefined) return undefined;
  const command = { argv: init, environment: {}, cwd: "/", uid: 0, gid: 0 };
  return whyNotExecuted(root, command, said).message.replace(/^Command not (found|executable): /, "");
}

/** Adds the cause in the user's words to crun's message about an init that it could not execute.
 * @param config Expanded. @see crun 1.8, src/libcrun/container.c */
export function explainRefusal(message: string, config: Config): string {
  const processes = config["limits.processes"];
  // crun forks within the container's limit; its hook (with nesting) then ends by EAGAIN or ENOMEM.
  if (processes && /(fork|clone).*Resource temporarily unavailable|executing hook .*code: -1[12]/.test(message)) {
    return `${message} (it could start no more processes: limits.processes is ${processes})`;
  }
  if (/executable file .* not found/.test(message)) return `${message} (its image has no init)`;
  if (/open executable.*Permission denied/.test(message)) return `${message} (the init of its image is not executable)`;
  if (/open executable.*Operation not permitted/.test(message)) {
    return `${message} (the init of its image is not a regular file)`;
  }
  return message;
}
