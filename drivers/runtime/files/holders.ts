import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { listMounts } from "../../host/mounts/plug_tree.ts";

const holdersMax = 8;
const commandMaxLength = 60;

/** Who keeps a mount of a container busy, as the container would say it: "sleep 1000 (pid 12)" for a process that has its directory, its root, an open
 * file or a mapped one beneath `target`, and what is mounted below it.
 * @param init The container's init, by the host's number. @param pids Its processes, likewise. @param ours Identities of mounts that came with it. */
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

/** Links of a process in another mount namespace are shown from its own root. */
function holds(pid: number, target: string): boolean {
  const isBeneath = (path: string) => path === target || path.startsWith(`${target}/`);
  const links = ["cwd", "root", ...list(`/proc/${pid}/fd`).map((fd) => `fd/${fd}`)];
  if (links.some((link) => isBeneath(follow(`/proc/${pid}/${link}`)))) return true;
  // The path begins in column 74 or behind: after the first slash, as all that comes before has none.
  return read(`/proc/${pid}/maps`).split("\n").some((line) => isBeneath(line.slice(line.indexOf("/"))));
}

/** What it calls itself may be anything: no more than a line of printable characters is shown. */
function describe(pid: number): string {
  const words = read(`/proc/${pid}/cmdline`).split("\0").join(" ").trim() || read(`/proc/${pid}/comm`).trim();
  // deno-lint-ignore no-control-regex -- exactly those are to go
  const command = words.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?").slice(0, commandMaxLength);
  return `${command} (pid ${insidePid(pid)})`;
}

/** @returns Its number in the container: the second of those from here inwards. @see proc_pid_status(5) */
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
