import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { confineDevices } from "../../host/devices/device_program.ts";
import { removeDirectories, visitDirectories } from "../../host/files/directory_tree.ts";
import { parseMountInfo } from "../../host/mounts/mounts.ts";
import { CgroupLimits } from "./limits.ts";
import { containerDevices } from "../container_devices.ts";
import type { DeviceRule, Limits, ReachedLimit } from "../runtime.ts";

/** The cgroups of containers: one per container in every hierarchy of the host, owned by the container's root (delegated). It is the root of
 * the container's cgroup namespace. Their parent is the daemon's own cgroup, owned by the host's root.
 */

const root = "/sys/fs/cgroup";
/** Mount point of the v2 hierarchy on a hybrid host, as systemd mounts it. */
export const besides = join(root, "unified");

/** "unified": pure v2. "hybrid": v1 controllers with a v2 tree beside them, which crun refuses. "legacy": v1 alone. */
export type CgroupLayout = "unified" | "hybrid" | "legacy" | "none";

/** Files that a container's root must own to manage the cgroups below its own: those that move processes, and those that affect only its own
 * processes. "tasks" is v1's. @see cgroups(7), Cgroups delegation */
const delegatedFiles = (() => {
  const v1 = ["cgroup.procs", "tasks"], v2 = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];
  const ofKernel = read("/sys/kernel/cgroup/delegate").split("\n").filter((name) => /^[a-z_.]+$/.test(name));
  return [...new Set([...v1, ...v2, ...ofKernel])];
})();

/** Ten times what a host full of services uses. @see Documentation/admin-guide/cgroup-v2.rst of the kernel */
const boundsOfDescendants = { "cgroup.max.depth": "64", "cgroup.max.descendants": "10000" };

/** The cgroups of one daemon's containers. */
export class Cgroups {
  readonly layout: CgroupLayout;
  /** Name of the daemon's own cgroup. */
  readonly name: string;
  readonly #hierarchies: readonly string[];

  /** @param name Name of the daemon's own cgroup, the parent of its containers' cgroups, e.g. "lido-1a2b3c4d". */
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

  /** @returns Names of the cgroups in the daemon's own cgroup. */
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

  /** Removes the daemon's own cgroup when no container is left in it. */
  removeIfEmpty(): void {
    for (const hierarchy of this.#hierarchies) {
      try {
        rmdirSync(join(hierarchy, this.name));
      } catch { /* not there, or another container is in it */ }
    }
  }
}

/** The cgroup of one container, whichever layout the host has. */
export class Cgroup {
  /** Path from a hierarchy's root, as crun expects it. */
  readonly path: string;
  readonly #isUnified: boolean;
  readonly #directories: readonly string[];

  constructor(path: string, layout: CgroupLayout, hierarchies: readonly string[]) {
    this.path = `/${path}`;
    this.#isUnified = layout === "unified";
    this.#directories = hierarchies.map((hierarchy) => join(hierarchy, path));
  }

  /** Creates the cgroup in every hierarchy and delegates it. @param owner Host ids of the container's root.
   * @param devices Devices that the container may use. @throws {SystemCallError} When the kernel cannot deny it the others (v2). */
  create(owner: { uid: number; gid: number }, devices: readonly DeviceRule[] = containerDevices): void {
    for (const directory of this.#directories) {
      mkdirSync(join(directory, ".."), { recursive: true, mode: 0o755 });
      denyDevices(join(directory, ".."), devices);
      if (this.#isUnified) enableControllers(join(directory, ".."));
      mkdirSync(directory, { recursive: true, mode: 0o775 });
      // A v1 cpuset created below must have CPUs from the start: programs such as crun and podman do not assign any.
      const inherit = join(directory, "cgroup.clone_children");
      if (existsSync(join(directory, "cpuset.cpus")) && existsSync(inherit)) writeFileSync(inherit, "1");
      if (this.#isUnified) confineDevices(directory, devices);
      bound(directory);
      delegate(directory, owner);
    }
  }

  /** @throws {LidoError} bad_request when a limit cannot be set. */
  limit(limits: Limits): void {
    new CgroupLimits({ root, path: this.path, isUnified: this.#isUnified }).apply(limits);
  }

  /** Removes the cgroup and those that the container created in it; their processes must have ended. */
  async remove(): Promise<void> {
    for (const directory of this.#directories) await removeDirectories(directory);
  }

  freeze(frozen: boolean): void {
    if (this.#isUnified) writeFileSync(join(root, this.path, "cgroup.freeze"), frozen ? "1" : "0");
    else writeFileSync(join(root, "freezer", this.path, "freezer.state"), frozen ? "FROZEN" : "THAWED");
  }

  /** Thaws this cgroup and all below it: a container may have frozen those that it created. A missing cgroup is no error. */
  async thaw(): Promise<void> {
    const top = this.#isUnified ? join(root, this.path) : join(root, "freezer", this.path);
    const [file, value] = this.#isUnified ? ["cgroup.freeze", "0"] : ["freezer.state", "THAWED"];
    await visitDirectories(top, (directory) => {
      const path = join(directory, file!);
      if (existsSync(path)) writeFileSync(path, value!);
    });
  }

  /** Whether a freeze was requested. Not all processes need be frozen: one that waits for its vfork(2) child never freezes. */
  isFrozen(): boolean {
    if (this.#isUnified) return read(join(root, this.path, "cgroup.freeze")).trim() === "1";
    return read(join(root, "freezer", this.path, "freezer.self_freezing")).trim() === "1";
  }

  /** Pids of all processes in this cgroup and below. */
  processes(): Promise<number[]> {
    return members(this.#isUnified ? join(root, this.path) : join(root, "pids", this.path));
  }

  /** As `processes`, but of every hierarchy: an interrupted start has put its process into some of them only, and a container's root may have
   * moved processes within each hierarchy. */
  async stragglers(): Promise<number[]> {
    const all = new Set<number>();
    for (const directory of this.#directories) for (const pid of await members(directory)) all.add(pid);
    return [...all];
  }

  /** Tasks count as processes, as in LXD: the kernel has their sum over all cgroups that the container created. */
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

  /** The kernel counts a refusal in the cgroup of the refused process, so the cgroups that the container created are read, too. */
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

/** Denies devices in the daemon's own cgroup, for all containers at once: a privileged one can mount the hierarchy and allow itself what the
 * parent cgroup allows. The kernel does not change the list of a cgroup that has children, such as containers started by an earlier version; until
 * the last of those has ended, only the containers' own lists apply. */
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

/** Limits the cgroups within a container's: each one uses kernel memory and is visited when the container ends. v1 has no such limit. */
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

/** Enables every controller of the host below `directory`: only then do the controller's files exist, and get delegated. */
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

/** Pids of all processes in a directory's cgroup and below. A process outside our pid namespace is shown as 0. */
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

/** @returns Text to append to an error message. */
export async function reachedLimits(cgroup: Cgroup): Promise<string> {
  const reached = await cgroup.limitsReached();
  return reached.length > 0 ? ` (it has reached its limit of ${reached.join(" and ")})` : "";
}
