import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { listMounts } from "../../host/mounts/plug_tree.ts";

const holdersMax = 8;
const commandMaxLength = 60;

/** Finds what keeps a mount of a container busy, in the container's terms: "sleep 1000 (pid 12)" for a process whose working directory, root, open
 * file or mapped file is beneath `target`, and the mounts below it.
 * @param init Host pid of the container's init. @param pids Host pids of its processes. @param ours Identities of mounts that came with it. */
export function findHolders(init: number, pids: readonly number[], target: string, ours: readonly string[]): string[] {
  const found = mountsBelow(init, target, ours).map((path) => `a mount at "${path}"`);
  for (const pid of pids) {
    if (found.length >= holdersMax) break;
    if (holds(pid, target)) found.push(describe(pid));
  }
  return found.slice(0, holdersMax);
}

function mountsBelow(init: number, target: string, ours: readonly string[]): string[] {
  const mounts = listMounts(read(`/proc/${init}/mountinfo`));
  const others = mounts.filter(({ identity, isFollowing }) => !isFollowing && !ours.includes(identity));
  return [...new Set(others.map((mount) => mount.target).filter((path) => path.startsWith(`${target}/`)))];
}

/** The links of a process in another mount namespace are shown from its own root. */
function holds(pid: number, target: string): boolean {
  const isBeneath = (path: string) => path === target || path.startsWith(`${target}/`);
  const links = ["cwd", "root", ...list(`/proc/${pid}/fd`).map((fd) => `fd/${fd}`)];
  if (links.some((link) => isBeneath(follow(`/proc/${pid}/${link}`)))) return true;
  // The path begins in column 74 or later: at the first slash, because no column before it has one.
  return read(`/proc/${pid}/maps`).split("\n").some((line) => isBeneath(line.slice(line.indexOf("/"))));
}

/** A process may choose any command line: only one line of printable characters is shown. */
function describe(pid: number): string {
  const words = read(`/proc/${pid}/cmdline`).split("\0").join(" ").trim() || read(`/proc/${pid}/comm`).trim();
  // deno-lint-ignore no-control-regex -- exactly those are replaced
  const command = words.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?").slice(0, commandMaxLength);
  return `${command} (pid ${insidePid(pid)})`;
}

/** @returns Its pid in the container: the second number of NSpid, from our namespace inwards. @see proc_pid_status(5) */
function insidePid(pid: number): string {
  const numbers = /^NSpid:\s+(.*)$/m.exec(read(`/proc/${pid}/status`))?.[1]?.split(/\s+/) ?? [];
  return numbers[1] ?? numbers[0] ?? String(pid);
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // it has ended meanwhile
  }
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function follow(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}
