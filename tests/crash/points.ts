/** The points of the crash tests' daemon: before and after each change of the host (a command, a system call or a call of the file system) and at
 * each step of the journal. The fault is in the file `$LIDO_DIR.fault`, which is read at each point, so that it can be changed while the daemon runs:
 *   kill N   the daemon is killed
 *   fail N   the change is not made and fails
 *   late N   the change is made, and then fails
 *   hang N   the command never ends, and is killed at its limit, which is short here
 *   full N   the change is not made and fails; before, the filesystem of the daemon's directory is filled and the database's reserve deleted
 *   at NAME  the daemon is killed at the first point of that name
 *   cancel N every operation that can be cancelled is cancelled
 *   cut N    the daemon writes $LIDO_CUT_FILE and stops, for the host to kill the whole machine
 *   count    counts the points, into `$LIDO_DIR.fault.count`
 * A last word makes two equal faults different. */
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fillWith } from "../support/filesystem.ts";

const file = `${process.env.LIDO_DIR}.fault`;
let fault = "";
let left = 0;
let count = 0;

let cancel = () => {};

/** @param work Cancels every operation that can be cancelled. */
export function onCancel(work: () => void): void {
  cancel = work;
}

/** @returns The fault that is set now, which may be for a later point: the first word of the file. */
function mode(): string {
  let text = "";
  try {
    text = readFileSync(file, "utf8");
  } catch { /* no fault is set */ }
  if (text !== fault) {
    fault = text;
    left = Number(text.split(" ")[1] ?? 0);
    count = 0;
  }
  return text.split(" ")[0]!;
}

export function point(name: string): void {
  switch (mode()) {
    case "kill":
      if (--left !== 0) return;
      process.stderr.write(`killed: ${name}\n`);
      process.kill(process.pid, "SIGKILL");
      break;
    case "at":
      if (fault.split(" ").slice(1, -1).join(" ") === name) process.kill(process.pid, "SIGKILL");
      break;
    case "cancel":
      if (--left !== 0) return;
      process.stderr.write(`cancelled: ${name}\n`);
      cancel();
      break;
    case "cut":
      if (--left !== 0) return;
      // Rename, so that the host never sees a half-written file.
      writeFileSync(`${process.env.LIDO_CUT_FILE}.new`, name);
      renameSync(`${process.env.LIDO_CUT_FILE}.new`, process.env.LIDO_CUT_FILE!);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      break;
    case "count":
      writeFileSync(`${file}.count`, String(++count));
  }
}

/** @returns Whether the fault `wanted` is due at this change. */
export function isTurnOf(wanted: "fail" | "late" | "hang" | "full", what: string): boolean {
  if (mode() !== wanted || --left !== 0) return false;
  process.stderr.write(`${wanted}: ${what}\n`);
  return true;
}

/** @returns Whether this change must fail, on a full disk or otherwise. */
export function isToFail(what: string): boolean {
  if (!isTurnOf("full", what)) return isTurnOf("fail", what);
  const directory = process.env.LIDO_DIR!;
  rmSync(join(directory, "lido.db-reserve"));
  fillWith(dirname(directory));
  return true;
}

/** Makes a change of the host, with a point before and after it. @param failure Makes the error of an injected failure. */
export async function change<T>(what: string, make: () => T | Promise<T>, failure: () => Error): Promise<T> {
  point(`before ${what}`);
  if (isToFail(what)) throw failure();
  const result = await make();
  if (isTurnOf("late", what)) throw failure();
  point(`after ${what}`);
  return result;
}
