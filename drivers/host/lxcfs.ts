import { readdir, readFile, stat } from "node:fs/promises";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../../api/errors.ts";
import { parseMountInfo } from "./mounts.ts";

/** LXCFS: a FUSE filesystem whose files say what the reader's cgroup is limited to, to be mounted over those of /proc and /sys.
 * @see lxcfs(1), share/lxcfs/lxc.mount.hook */

export type LxcfsState =
  /** Nothing is mounted there. */
  | { readonly kind: "absent" }
  /** Mounted, but its process has ended or does not answer. */
  | { readonly kind: "dead"; readonly reason: string }
  | {
    readonly kind: "alive";
    /** As "0:96"; another with each start. */
    readonly device: string;
    /** What it stands in for, from "/" on, such as "/proc/meminfo". */
    readonly targets: readonly string[];
  };

/** It answers in microseconds; what does not within this time is taken for dead. */
const answerMs = 2_000;
const cpus = "/sys/devices/system/cpu";
export const lxcfsType = "fuse.lxcfs";

/** The state of one mount point. A filesystem that does not answer is asked by one thread, however often one looks. */
export class Lxcfs {
  readonly path: string;
  #asked: Promise<LxcfsState> | undefined;
  #alive: Extract<LxcfsState, { kind: "alive" }> | undefined;

  /** @param path Where it is mounted, absolute. */
  constructor(path: string) {
    this.path = path;
  }

  async state(): Promise<LxcfsState> {
    this.#asked ??= this.#ask().finally(() => this.#asked = undefined);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<LxcfsState>((resolve) => {
      timer = setTimeout(() => resolve({ kind: "dead", reason: "it does not answer" }), answerMs);
    });
    try {
      return await Promise.race([this.#asked, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #ask(): Promise<LxcfsState> {
    const mounts = parseMountInfo(await readFile("/proc/self/mountinfo", "utf8"));
    const mount = mounts.findLast(({ target }) => target === this.path);
    if (mount?.type !== lxcfsType) return { kind: "absent" };
    try {
      const files = await readdir(join(this.path, "proc"));
      if (this.#alive?.device !== mount.device) {
        const targets = await this.#targets(files);
        this.#alive = { kind: "alive", device: mount.device, targets };
      }
      return this.#alive!;
    } catch (error) {
      const isGone = (error as NodeJS.ErrnoException).code === "ENOTCONN";
      return { kind: "dead", reason: isGone ? "its process is gone" : messageOf(error) };
    }
  }

  /** As the hook that comes with it: all of the CPUs' directory where lxcfs has all of it, else what it has of it; and what the host has, too. */
  async #targets(files: readonly string[]): Promise<string[]> {
    const isWhole = await exists(join(this.path, cpus, "uevent"));
    const ofCpus = isWhole ? [] : await readdir(join(this.path, cpus)).catch(() => []);
    const targets = [
      ...files.map((name) => `/proc/${name}`),
      ...(isWhole ? [cpus] : ofCpus.map((name) => join(cpus, name))),
    ];
    return targets.filter((path) => existsSync(path));
  }
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(() => true, (error) => {
    if (error.code === "ENOENT") return false;
    throw error;
  });
}

/** @returns The device of what is mounted uppermost at each path in a process's mount namespace, and whether it is an LXCFS. */
export async function mountsWithin(pid: number): Promise<Map<string, { device: string; isLxcfs: boolean }>> {
  const mounts = parseMountInfo(await readFile(`/proc/${pid}/mountinfo`, "utf8"));
  return new Map(mounts.map(({ target, device, type }) => [target, { device, isLxcfs: type === lxcfsType }]));
}
