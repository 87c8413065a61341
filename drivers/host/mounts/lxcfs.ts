import { existsSync, readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf } from "../../../api/errors.ts";
import { parseMountInfo } from "./mounts.ts";

/** LXCFS: a FUSE filesystem whose files show the limits of the reader's cgroup, to be mounted over those of /proc and /sys.
 * @see lxcfs(1), share/lxcfs/lxc.mount.hook */

export type LxcfsState =
  /** Nothing is mounted there. */
  | { readonly kind: "absent" }
  /** Mounted, but its process has ended or does not answer. */
  | { readonly kind: "dead"; readonly reason: string }
  | {
    readonly kind: "alive";
    /** Such as "0:96"; differs after each start. */
    readonly device: string;
    /** Absolute paths that it replaces, such as "/proc/meminfo". */
    readonly targets: readonly string[];
  };

/** LXCFS answers in microseconds; without an answer within this time it counts as dead. */
const answerMs = 2_000;
const cpus = "/sys/devices/system/cpu";
export const lxcfsType = "fuse.lxcfs";

/** Reads an LXCFS, which may never answer: in a file process (`FileTask`), with an error at the timeout. */
export type LxcfsLook = (path: string, timeoutMs: number) => Promise<readonly string[]>;

/** The state of one LXCFS mount point. This process reads only the kernel's list of mounts. */
export class Lxcfs {
  readonly path: string;
  readonly #look: LxcfsLook;
  #asked: Promise<LxcfsState> | undefined;

  /** @param path Its mount point, absolute. @param look `lxcfsTargets`, run in another process. */
  constructor(path: string, look: LxcfsLook) {
    this.path = path;
    this.#look = look;
  }

  state(): Promise<LxcfsState> {
    return this.#asked ??= this.#ask().finally(() => this.#asked = undefined);
  }

  async #ask(): Promise<LxcfsState> {
    const mounts = parseMountInfo(await readFile("/proc/self/mountinfo", "utf8"));
    const mount = mounts.findLast(({ target }) => target === this.path);
    if (mount?.type !== lxcfsType) return { kind: "absent" };
    try {
      return { kind: "alive", device: mount.device, targets: await this.#look(this.path, answerMs) };
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOTCONN") return { kind: "dead", reason: "its process is gone" };
      return { kind: "dead", reason: code === "ETIMEDOUT" ? "it does not answer" : messageOf(error) };
    }
  }
}

/** The paths that the LXCFS at `path` replaces, as in LXCFS's own hook: the CPUs' whole directory if lxcfs has all of it, else the files that it has;
 * only paths that the host has, too. May block for ever. @throws {Error} ENOTCONN when its process has ended. */
export function lxcfsTargets(path: string): string[] {
  const files = readdirSync(join(path, "proc"));
  const isWhole = existsSync(join(path, cpus, "uevent"));
  const ofCpus = isWhole || !existsSync(join(path, cpus)) ? [] : readdirSync(join(path, cpus));
  const targets = [
    ...files.map((name) => `/proc/${name}`),
    ...(isWhole ? [cpus] : ofCpus.map((name) => join(cpus, name))),
  ];
  return targets.filter((target) => existsSync(target));
}

/** @returns The device of the uppermost mount at each path in a process's mount namespace, and whether it is an LXCFS. */
export async function mountsWithin(pid: number): Promise<Map<string, { device: string; isLxcfs: boolean }>> {
  const mounts = parseMountInfo(await readFile(`/proc/${pid}/mountinfo`, "utf8"));
  return new Map(mounts.map(({ target, device, type }) => [target, { device, isLxcfs: type === lxcfsType }]));
}
