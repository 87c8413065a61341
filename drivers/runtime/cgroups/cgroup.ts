import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { confineDevices } from "../../host/devices/device_program.ts";
import { removeDirectories, visitDirectories } from "../../host/files/directory_tree.ts";
import { parseMountInfo } from "../../host/mounts/mounts.ts";
import { CgroupLimits } from "./limits.ts";
import { containerDevices } from "../container_devices.ts";
import type { DeviceRule, Limits, ReachedLimit } from "../runtime.ts";

/** The cgroups of containers: one for each container in every hierarchy that the host has, owned by the container's root (delegated), and
 * the root of the container's cgroup namespace. Above them is one of the daemon's own, which the host's root owns.
 */

const root = "/sys/fs/cgroup";
/** The v2 hierarchy of a hybrid host, where systemd mounts it. */
export const besides = join(root, "unified");

/** "unified": pure v2. "hybrid": v1 controllers with a v2 tree beside them, which crun refuses. "legacy": v1 alone. */
export type CgroupLayout = "unified" | "hybrid" | "legacy" | "none";

/** What a container's root must own to manage the cgroups below its own: where it moves processes, and what acts on its own processes only.
 * "tasks" is v1's. @see cgroups(7), Cgroups delegation */
const delegatedFiles = (() => {
  const v1 = ["cgroup.procs", "tasks"], v2 = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];
  const ofKernel = read("/sys/kernel/cgroup/delegate").split("\n").filter((name) => /^[a-z_.]+$/.test(name));
  return [...new Set([...v1, ...v2, ...ofKernel])];
})();

/** Ten times what a host full of services has. @see Documentation/admin-guide/cgroup-v2.rst of the kernel */
const boundsOfDescendants = { "cgroup.max.depth": "64", "cgroup.max.descendants": "10000" };

/** The cgroups of one daemon's containers. */
export class Cgroups {
  readonly layout: CgroupLayout;
  /** Of the daemon's own cgroup. */
  readonly name: string;
  readonly #hierarchies: readonly string[];

  /** @param name Of the daemon's own cgroup, the parent of its containers', e.g. "lido-1a2b3c4d". */
  constructor(name: string) {
    this.name = name;
    const mounted = parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8")).filter(({ target, type }) =>
      (target === root || target.startsWith(`${root}/`)) && (type === "cgroup" || type === "cgroup2")
    );
    this.#hierarchies = [...new Set(mounted.map(({ target }) => target))];
    const isUnified = mounted.some(({ type, target }) => type === "cgroup2" && target === root);
    const isHybrid = mounted.some(({ type, target }) => type === "cgroup2" && target === besides);
    this.layout = isUnified ? "unified" : isHybrid ? "hybrid" : mounted.length > 0 ? "legacy" : "none";
  }

  of(container: string): Cgroup {
    return new Cgroup(join(this.name, container), this.layout, this.#hierarchies);
  }

  /** @returns Names of the cgroups within the daemon's own. */
  names(): string[] {
    const found = new Set<string>();
    for (const directory of this.#hierarchies.map((hierarchy) => join(hierarchy, this.name))) {
      if (!existsSync(directory)) continue;
      for (const entry of readdirSync(directory, { withFileTypes: true })) {
        if (entry.isDirectory()) found.add(entry.name);
      }
    }
    return [...found];
  }

  /** Removes the daemon's own cgroup once no container is left in it. */
  removeIfEmpty(): void {
    for (const hierarchy of this.#hierarchies) {
      try {
        rmdirSync(join(hierarchy, this.name));
      } catch { /* not there, or another container is in it */ }
    }
  }
}

/** The cgroup of one container, in whichever layout the host has. */
export class Cgroup {
  /** From a hierarchy's root, as crun takes it. */
  readonly path: string;
  readonly #isUnified: boolean;
  readonly #directories: readonly string[];

  constructor(path: string, layout: CgroupLayout, hierarchies: readonly string[]) {
    this.path = `/${path}`;
    this.#isUnified = layout === "unified";
    this.#directories = hierarchies.map((hierarchy) => join(hierarchy, path));
  }

  /** Makes it in every hierarchy and delegates it. @param owner Host ids of the container's root.
   * @param devices What it may use. @throws {SystemCallError} When the kernel cannot keep it from others (v2). */
  create(owner: { uid: number; gid: number }, devices: readonly DeviceRule[] = containerDevices): void {
    for (const directory of this.#directories) {
      mkdirSync(join(directory, ".."), { recursive: true, mode: 0o755 });
      denyDevices(join(directory, ".."), devices);
      if (this.#isUnified) enableControllers(join(directory, ".."));
      mkdirSync(directory, { recursive: true, mode: 0o775 });
      // A v1 cpuset that is made below has CPUs from the start: programs such as crun and podman do not give it any.
      const inherit = join(directory, "cgroup.clone_children");
      if (existsSync(join(directory, "cpuset.cpus")) && existsSync(inherit)) writeFileSync(inherit, "1");
      if (this.#isUnified) confineDevices(directory, devices);
      bound(directory);
      delegate(directory, owner);
    }
  }

  /** @throws {LidoError} bad_request when one cannot be had. */
  limit(limits: Limits): void {
    new CgroupLimits({ root, path: this.path, isUnified: this.#isUnified }).apply(limits);
  }

  /** Removes it, with those that the container made within; the processes must be gone. */
  async remove(): Promise<void> {
    for (const directory of this.#directories) await removeDirectories(directory);
  }

  freeze(frozen: boolean): void {
    if (this.#isUnified) writeFileSync(join(root, this.path, "cgroup.freeze"), frozen ? "1" : "0");
    else writeFileSync(join(root, "freezer", this.path, "freezer.state"), frozen ? "FROZEN" : "THAWED");
  }

  /** Thaws what is frozen in it and below, whoever froze it: a container may freeze the cgroups that it made. A missing cgroup is no error. */
  async thaw(): Promise<void> {
    const top = this.#isUnified ? join(root, this.path) : join(root, "freezer", this.path);
    const [file, value] = this.#isUnified ? ["cgroup.freeze", "0"] : ["freezer.state", "THAWED"];
    await visitDirectories(top, (directory) => {
      const path = join(directory, file!);
      if (existsSync(path)) writeFileSync(path, value!);
    });
  }

  /** Whether it was asked to be. Whether every process stands still is another thing: one that waits for its vfork(2) child never does. */
  isFrozen(): boolean {
    if (this.#isUnified) return read(join(root, this.path, "cgroup.freeze")).trim() === "1";
    return read(join(root, "freezer", this.path, "freezer.self_freezing")).trim() === "1";
  }

  /** Pids of every process in it and below. */
  processes(): Promise<number[]> {
    return members(this.#isUnified ? join(root, this.path) : join(root, "pids", this.path));
  }

  /** As `processes`, of every hierarchy: a start that was interrupted has put its process into some of them, and a container's root may have moved
   * one within each. */
  async stragglers(): Promise<number[]> {
    const all = new Set<number>();
    for (const directory of this.#directories) for (const pid of await members(directory)) all.add(pid);
    return [...all];
  }

  /** Tasks count as processes, as in LXD: the kernel has the sum, however many cgroups the container made. */
  async usage(): Promise<{ processes: number; memoryBytes: bigint; memoryPeakBytes: bigint; cpuNs: bigint }> {
    const counted = this.#number(this.#isUnified ? "" : "pids", "pids.current");
    const processes = counted > 0n ? Number(counted) : (await this.processes()).length;
    if (this.#isUnified) {
      const cpu = /^usage_usec (\d+)$/m.exec(this.#read("", "cpu.stat"))?.[1] ?? "0";
      const memoryBytes = this.#number("", "memory.current");
      return {
        processes,
        memoryBytes,
        memoryPeakBytes: this.#number("", "memory.peak") || memoryBytes,
        cpuNs: BigInt(cpu) * 1000n,
      };
    }
    return {
      processes,
      memoryBytes: this.#number("memory", "memory.usage_in_bytes"),
      memoryPeakBytes: this.#number("memory", "memory.max_usage_in_bytes"),
      cpuNs: this.#number("cpuacct", "cpuacct.usage"),
    };
  }

  /** The kernel counts in the cgroup of who was refused: those that the container made are looked at, too. */
  async limitsReached(): Promise<ReachedLimit[]> {
    const counted = async (controller: string, file: string, counter: RegExp): Promise<boolean> => {
      let isReached = false;
      await visitDirectories(join(root, this.#isUnified ? "" : controller, this.path), (directory) => {
        isReached ||= counter.test(read(join(directory, file)));
      });
      return isReached;
    };
    return [
      ...(await counted("pids", "pids.events", /^max [1-9]/m) ? ["processes" as const] : []),
      ...(await counted("memory", this.#isUnified ? "memory.events" : "memory.oom_control", /^oom_kill [1-9]/m)
        ? ["memory" as const]
        : []),
    ];
  }

  #read(controller: string, file: string): string {
    return read(join(root, controller, this.path, file));
  }

  #number(controller: string, file: string): bigint {
    const text = this.#read(controller, file).trim();
    return /^\d+$/.test(text) ? BigInt(text) : 0n;
  }
}

/** Denies devices to all containers of the daemon at once: a privileged one can mount the hierarchy and allow itself what the cgroup above has. The kernel
 * does not change what a cgroup has that others are below, such as those of containers that an earlier version started; then the containers' own
 * lists are all there is until the last has ended. */
function denyDevices(directory: string, devices: readonly DeviceRule[]): void {
  if (!existsSync(join(directory, "devices.deny"))) return;
  if (read(join(directory, "devices.list")).trim() === "a *:* rwm") {
    try {
      writeFileSync(join(directory, "devices.deny"), "a");
    } catch {
      return;
    }
  }
  for (const { type, major = "*", minor = "*", access } of devices) {
    writeFileSync(join(directory, "devices.allow"), `${type} ${major}:${minor} ${access}`);
  }
}

/** How many cgroups a container's own may have within it: each is the kernel's memory, and looked at when the container ends. v1 has no such limit. */
function bound(directory: string): void {
  for (const [name, value] of Object.entries(boundsOfDescendants)) {
    const file = join(directory, name);
    if (existsSync(file)) writeFileSync(file, value);
  }
}

function delegate(directory: string, { uid, gid }: { uid: number; gid: number }): void {
  if (uid === 0 && gid === 0) return;
  chownSync(directory, uid, gid);
  for (const file of delegatedFiles) {
    const path = join(directory, file);
    if (existsSync(path)) chownSync(path, uid, gid);
  }
}

/** Makes every controller of the host available below `directory`: a controller's files are there, and delegated, only then. */
function enableControllers(directory: string): void {
  for (const each of [root, directory]) {
    const words = (file: string) => read(join(each, file)).split(/\s+/).filter(Boolean);
    const enabled = words("cgroup.subtree_control");
    for (const controller of words("cgroup.controllers").filter((name) => !enabled.includes(name))) {
      try {
        writeFileSync(join(each, "cgroup.subtree_control"), `+${controller}`);
      } catch { /* it cannot be had here (cpu with real-time processes); limits that need it are refused by crun */ }
    }
  }
}

/** Pids of every process in the cgroup of a directory and below. One that is in no pid namespace of ours is shown as 0. */
async function members(top: string): Promise<number[]> {
  const found: number[] = [];
  await visitDirectories(top, (directory) => {
    found.push(...read(join(directory, "cgroup.procs")).split("\n").map(Number).filter((pid) => pid > 0));
  });
  return found;
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** @returns For the end of an error's text. */
export async function reachedLimits(cgroup: Cgroup): Promise<string> {
  const reached = await cgroup.limitsReached();
  return reached.length > 0 ? ` (it has reached its limit of ${reached.join(" and ")})` : "";
}
