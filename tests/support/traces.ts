/** Finds a daemon's traces on its host, to show that nothing was left, and removes them. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, readlinkSync, realpathSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { markOn } from "../../drivers/host/tools/left_tools.ts";
import { command } from "./command.ts";

export interface Traces {
  /** Mount points, innermost first. */
  readonly mounts: readonly string[];
  /** Loop devices, each with its backing file. */
  readonly loops: readonly { device: string; file: string }[];
  readonly processes: readonly { pid: number; what: string }[];
  readonly cgroups: readonly string[];
}

const cgroupRoot = "/sys/fs/cgroup";

function lines(path: string): string[] {
  try {
    return readFileSync(path, "utf8").split("\n").filter(Boolean);
  } catch {
    return []; // the process ended meanwhile, or the kernel has no such file
  }
}

function entries(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function hasProcesses(cgroup: string): boolean {
  return lines(join(cgroup, "cgroup.procs")).length > 0 ||
    entries(cgroup).some((name) => !name.includes(".") && hasProcesses(join(cgroup, name)));
}

/** Directories of the runtime's cgroups on this host that have no processes: an ended daemon left them. A cgroup with processes belongs to another
 * daemon, or is found by its processes. */
export function emptyCgroups(): string[] {
  return lidoCgroups().filter((path) => !hasProcesses(path));
}

function lidoCgroups(): string[] {
  const trees = [cgroupRoot, ...entries(cgroupRoot).map((name) => join(cgroupRoot, name))];
  const found = trees.flatMap((tree) =>
    entries(tree).filter((name) => /^lido-[0-9a-f]{8}$/.test(name)).map((name) => join(tree, name))
  );
  const real = found.flatMap((path) => {
    try {
      return [realpathSync(path)];
    } catch {
      return []; // another daemon's, removed meanwhile
    }
  });
  return [...new Set(real)].sort();
}

/** Name of the cgroup that the daemon of `directory` keeps its containers in. */
export function cgroupName(directory: string): string {
  return `lido-${createHash("sha256").update(join(directory, "run")).digest("hex").slice(0, 8)}`;
}

/** Finds what belongs to daemons in or below `directory`. */
export function findTraces(directory: string, daemons: readonly string[] = [directory]): Traces {
  const names = new Set(daemons.map(cgroupName));
  const isWithin = (path: string) => path === directory || path.startsWith(`${directory}/`);
  const mounts = lines("/proc/self/mountinfo").map((line) => line.split(" ")[4]!.replaceAll("\\040", " ")).filter(
    isWithin,
  )
    .reverse();
  const loops = entries("/sys/block").filter((name) => name.startsWith("loop")).flatMap((name) => {
    const [file] = lines(`/sys/block/${name}/loop/backing_file`);
    return file !== undefined && isWithin(file) ? [{ device: `/dev/${name}`, file }] : [];
  });
  const processes = entries("/proc").filter((name) => /^\d+$/.test(name)).flatMap((name) => {
    const pid = Number(name);
    // This test's own process and its parent may name the directory.
    if (pid === process.pid || pid === process.ppid) return [];
    // A zombie that waits for the host's init. /proc still shows its v2 cgroup.
    if (lines(`/proc/${pid}/status`).includes("State:\tZ (zombie)")) return [];
    const words = lines(`/proc/${pid}/cmdline`).join("").split("\0");
    const environment = lines(`/proc/${pid}/environ`).join("").split("\0");
    let cwd = "";
    try {
      cwd = readlinkSync(`/proc/${pid}/cwd`);
    } catch { /* it has ended, or is a kernel thread */ }
    const isOurs = words.some((word) => word.includes(`${directory}/`) || word === directory) ||
      environment.some((one) => one.startsWith("LIDO_DIR=") && isWithin(one.slice(9))) || isWithin(cwd) ||
      isWithin(markOn(pid)?.directory ?? "") ||
      lines(`/proc/${pid}/cgroup`).some((line) => line.split(/[:/]/).some((part) => names.has(part)));
    return isOurs ? [{ pid, what: words.join(" ").trim() || name }] : [];
  });
  const cgroups = lidoCgroups().filter((path) => names.has(path.split("/").at(-1)!));
  return { mounts, loops, processes, cgroups };
}

/** Active logical volumes and imported ZFS pools of all daemons: compare the lists before and after a test to find leftovers. */
export function kernelObjects(): string[] {
  const mapped = entries("/sys/block").filter((name) => name.startsWith("dm-"));
  const pools = entries("/proc/spl/kstat/zfs").filter((name) => entries(`/proc/spl/kstat/zfs/${name}`).length > 0);
  return [
    ...mapped.flatMap((name) => lines(`/sys/block/${name}/dm/name`)).map((name) => `device-mapper device ${name}`),
    ...pools.map((name) => `ZFS pool ${name}`),
  ];
}

/** @returns One line for each trace; empty when nothing is left. */
export function describe(traces: Traces): string[] {
  return [
    ...traces.mounts.map((path) => `mount ${path}`),
    ...traces.loops.map(({ device, file }) => `loop device ${device} on ${file}`),
    ...traces.processes.map(({ pid, what }) => `process ${pid}: ${what}`),
    ...traces.cgroups.map((path) => `cgroup ${path}`),
  ];
}

function removeCgroup(path: string): void {
  for (const name of entries(path)) if (!name.includes(".")) removeCgroup(join(path, name));
  try {
    rmdirSync(path);
  } catch { /* a file, or a process that still dies in it: the next search reports it */ }
}

/** Removes everything of `directory` by force: the last resort after a failed test. */
export async function sweep(directory: string): Promise<void> {
  for (let round = 0; round < 20; round++) {
    const traces = findTraces(directory);
    if (describe(traces).length === 0) break;
    for (const { pid } of traces.processes) {
      try {
        process.kill(pid, "SIGKILL");
      } catch { /* it has ended meanwhile */ }
    }
    for (const path of traces.mounts) await command(["umount", "-l", path]);
    for (const { device } of traces.loops) await command(["losetup", "-d", device]);
    for (const path of traces.cgroups) removeCgroup(path);
    await new Promise((resolve) => setTimeout(resolve, 50)); // killed processes take some time to end
  }
  rmSync(directory, { recursive: true, force: true });
}
