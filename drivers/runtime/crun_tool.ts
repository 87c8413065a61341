import { existsSync, readFileSync } from "node:fs";
import { observed } from "../host/tools/command.ts";
import { check, cString, libc } from "../host/ffi/libc.ts";
import type { MountNamespace } from "../host/mounts/namespace.ts";
import type { Poller } from "../host/poll/poll.ts";
import { closeFd, spawnProcess } from "../host/process/process.ts";
import { childEndWithin } from "./process/child.ts";
import type { Orphans } from "./process/orphans.ts";

export const crunPath = "/usr/bin/crun";
const O_RDWR = 2, O_CLOEXEC = 0x80000;

export interface CrunStart {
  /** File for crun's own messages. */
  readonly log: string;
  /** Path of a null device for streams that are not given. Not the host's: crun changes its owner to the container's root. */
  readonly nullDevice: string;
  /** Becomes crun's descriptor 3. */
  readonly extra?: number;
  readonly stdio?: { readonly stdin: number; readonly stdout: number; readonly stderr: number };
}

/** Runs crun inside the runtime's mount namespace. */
export class CrunTool {
  /** Directory of crun's state. */
  readonly root: string;
  readonly #namespace: MountNamespace;
  readonly #poller: Poller;
  readonly #orphans: Orphans;
  readonly #running = new Map<number, { readonly argv: readonly string[]; readonly started: number }>();

  constructor(parts: { root: string; namespace: MountNamespace; poller: Poller; orphans: Orphans }) {
    this.root = parts.root;
    this.#namespace = parts.namespace;
    this.#poller = parts.poller;
    this.#orphans = parts.orphans;
  }

  /** @returns crun's pid, which must be passed to `ended`. */
  start(argv: readonly string[], options: CrunStart): number {
    const started = performance.now();
    const pid = this.#namespace.enter(() => this.#spawn(argv, options));
    this.#running.set(pid, { argv: ["crun", ...argv], started });
    return pid;
  }

  /** Waits for crun, kills it at the timeout, and reaps it. @returns Its exit code; undefined when it was killed. */
  async ended(pid: number, timeoutMs: number): Promise<number | undefined> {
    const { argv, started } = this.#running.get(pid)!;
    try {
      const { code, signal } = await childEndWithin(this.#poller, pid, timeoutMs);
      observed(argv, started, code === undefined ? `killed by signal ${signal}` : `${code}`);
      return code;
    } finally {
      this.#running.delete(pid);
      this.#orphans.removeAwaited(pid);
    }
  }

  #spawn(argv: readonly string[], options: CrunStart): number {
    const opened: number[] = [];
    const open = (path: string, flags: number) => {
      const fd = check(`open ${path}`, libc.open(cString(path), flags | O_CLOEXEC, 0));
      opened.push(fd);
      return fd;
    };
    try {
      const nothing = () => open(options.nullDevice, O_RDWR);
      const pid = spawnProcess({
        file: crunPath,
        // The next daemon recognises it by the beginning of its command line: `endCruns`.
        argv: ["crun", "--root", this.root, "--cgroup-manager", "cgroupfs", "--log", options.log, ...argv],
        environment: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
        stdio: options.stdio ?? { stdin: nothing(), stdout: nothing(), stderr: nothing() },
        ...(options.extra === undefined ? {} : { extra: options.extra }),
      });
      this.#orphans.addAwaited(pid);
      return pid;
    } finally {
      for (const fd of opened) closeFd(fd);
    }
  }
}

/** @returns What crun wrote to its log, the last line without its decoration. */
export function crunMessage(log: string): string {
  const lines = existsSync(log) ? readFileSync(log, "utf8").trim().split("\n").filter(Boolean) : [];
  const last = lines.at(-1) ?? "crun gave no reason";
  return last.replace(/^time="[^"]*" level=\w+ msg=/, "").replace(/^\d{4}-\S+: /, "").replace(
    /^invalid seccomp syscall `(.*)`$/,
    'the host\'s libseccomp knows no system call "$1" (security.syscalls.allow, security.syscalls.deny)',
  );
}
