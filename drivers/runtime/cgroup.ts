import { readdirSync, readFileSync, rmdirSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const root = "/sys/fs/cgroup";
const CGROUP2_SUPER_MAGIC = 0x63677270;

/** "unified": pure v2. "hybrid": v1 controllers with a v2 tree beside them, which crun refuses. "legacy": v1 alone. */
export type CgroupLayout = "unified" | "hybrid" | "legacy" | "none";

export function cgroupLayout(): CgroupLayout {
  if (isCgroup2(root)) return "unified";
  if (isCgroup2(join(root, "unified"))) return "hybrid";
  return exists(join(root, "memory")) ? "legacy" : "none";
}

/** The cgroup of one container, in whichever layout the host has. */
export class Cgroup {
  readonly #path: string;
  readonly #isUnified: boolean;

  /** @param path From the cgroup tree's root, e.g. "/lido-1a2b3c4d/c1". */
  constructor(path: string, layout: CgroupLayout) {
    this.#path = path;
    this.#isUnified = layout === "unified";
  }

  /** Takes the cgroups away, with those that the container made within; the processes must be gone. */
  remove(): void {
    for (const directory of this.#directories()) removeTree(directory);
  }

  freeze(frozen: boolean): void {
    if (this.#isUnified) writeFileSync(join(root, this.#path, "cgroup.freeze"), frozen ? "1" : "0");
    else writeFileSync(join(root, "freezer", this.#path, "freezer.state"), frozen ? "FROZEN" : "THAWED");
  }

  /** Whether it was asked to be. Whether every process stands still is another thing: one that waits for its vfork(2) child never does. */
  isFrozen(): boolean {
    if (this.#isUnified) return read(join(root, this.#path, "cgroup.freeze")).trim() === "1";
    return read(join(root, "freezer", this.#path, "freezer.self_freezing")).trim() === "1";
  }

  /** Pids of every process in it and below. */
  processes(): number[] {
    const top = this.#isUnified ? join(root, this.#path) : join(root, "pids", this.#path);
    return below(top).flatMap((directory) =>
      read(join(directory, "cgroup.procs")).split("\n").filter(Boolean).map(Number)
    );
  }

  usage(): { processes: number; memoryBytes: bigint; memoryPeakBytes: bigint; cpuNs: bigint } {
    const processes = this.processes().length;
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

  #read(controller: string, file: string): string {
    return read(join(root, controller, this.#path, file));
  }

  #number(controller: string, file: string): bigint {
    const text = this.#read(controller, file).trim();
    return /^\d+$/.test(text) ? BigInt(text) : 0n;
  }

  #directories(): string[] {
    if (this.#isUnified) return [join(root, this.#path)];
    return controllers().map((controller) => join(root, controller, this.#path));
  }
}

/** @returns Names of the cgroups within the daemon's own level of the tree. */
export function cgroupsIn(path: string, layout: CgroupLayout): string[] {
  const directories = layout === "unified"
    ? [join(root, path)]
    : controllers().map((controller) => join(root, controller, path));
  const found = new Set<string>();
  for (const directory of directories) {
    if (!exists(directory)) continue;
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      if (entry.isDirectory()) found.add(entry.name);
    }
  }
  return [...found];
}

/** Takes the daemon's own level of the tree away once no container is left in it. */
export function removeEmptyParent(path: string, layout: CgroupLayout): void {
  const directories = layout === "unified"
    ? [join(root, path)]
    : controllers().map((controller) => join(root, controller, path));
  for (const directory of directories) {
    try {
      rmdirSync(directory);
    } catch { /* not there, or another container is in it */ }
  }
}

function controllers(): string[] {
  return readdirSync(root).filter((name) => !name.includes(","));
}

function below(directory: string): string[] {
  let entries;
  try {
    entries = readdirSync(directory, { withFileTypes: true });
  } catch {
    return [];
  }
  return [
    directory,
    ...entries.filter((entry) => entry.isDirectory()).flatMap((entry) => below(join(directory, entry.name))),
  ];
}

function removeTree(directory: string): void {
  for (const one of below(directory).reverse()) {
    try {
      rmdirSync(one);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function exists(path: string): boolean {
  try {
    readdirSync(path);
    return true;
  } catch {
    return false;
  }
}

function isCgroup2(path: string): boolean {
  try {
    return statfsSync(path).type === CGROUP2_SUPER_MAGIC;
  } catch {
    return false;
  }
}
