import { randomUUID } from "node:crypto";
import { messageOf } from "../../api/errors.ts";
import type { Warning } from "../../api/types.ts";
import { Lxcfs, type LxcfsState, mountsWithin } from "../../drivers/host/mounts/lxcfs.ts";
import type { MountSpec, Runtime } from "../../drivers/runtime/runtime.ts";

/** A check takes half a millisecond. Between two checks a container may read errors instead of its limits. */
const lookEveryMs = 3_000;

export interface ResourceViewOptions {
  /** Where LXCFS is mounted, if it runs. */
  readonly path: string;
  readonly runtime: Pick<Runtime, "get" | "attach" | "detach" | "lxcfsTargets">;
  readonly instances: () => readonly string[];
  readonly log: { info(context: object, message: string): void; warn(context: object, message: string): void };
}

/** What containers see of memory and CPUs: their own limits, if LXCFS runs. When LXCFS ends, its dead files are unmounted in the running containers,
 * which then see the host's figures; when it runs again, its files are mounted again. */
export class ResourceView {
  readonly #options: ResourceViewOptions;
  readonly #lxcfs: Lxcfs;
  #state: LxcfsState = { kind: "absent" };
  #warning: Warning | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Containers that were given their mounts and did not run yet: LXCFS may have changed before they did. */
  readonly #starting = new Set<string>();
  #looking: Promise<void> = Promise.resolve();

  constructor(options: ResourceViewOptions) {
    this.#options = options;
    this.#lxcfs = new Lxcfs(options.path, (path, timeoutMs) => options.runtime.lxcfsTargets(path, timeoutMs));
  }

  /** @returns The mounts for a container that is about to start; none without LXCFS. */
  async mounts(name: string): Promise<MountSpec[]> {
    this.#starting.add(name);
    const state = await this.#lxcfs.state();
    return state.kind === "alive" ? state.targets.map((target) => this.#mount(target)) : [];
  }

  /** Called after the end of a container, or a failed start. */
  release(name: string): void {
    this.#starting.delete(name);
  }

  /** Checks LXCFS at once, and then every few seconds. */
  async start(): Promise<void> {
    await this.look(true);
    this.#timer = setInterval(() => void this.look(), lookEveryMs);
    this.#timer.unref();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
  }

  warnings(): Warning[] {
    return this.#warning ? [this.#warning] : [];
  }

  /** @param isFirst Checks every container: those of an earlier daemon may have dead mounts, or lack mounts. */
  look(isFirst = false): Promise<void> {
    return this.#looking = this.#looking.then(async () => {
      const before = this.#state, now = await this.#lxcfs.state();
      this.#state = now;
      const isChange = isFirst || !same(before, now);
      if (isChange) this.#say(before, now);
      const due = isChange ? this.#options.instances() : [...this.#starting];
      for (const name of due.filter((one) => this.#options.runtime.get(one))) {
        this.#starting.delete(name);
        await this.#bring(name, now).catch((error) =>
          this.#options.log.warn(
            { instance: name, error: messageOf(error) },
            "cannot change what an instance sees by lxcfs",
          )
        );
      }
    });
  }

  #say(before: LxcfsState, now: LxcfsState): void {
    const { path, log } = this.#options;
    if (now.kind === "alive") {
      this.#warning = undefined;
      if (before.kind !== "alive" || before.device !== now.device) {
        log.info({ path }, "lxcfs runs: containers see their own limits in /proc and /sys");
      }
      return;
    }
    if (now.kind === "absent" && before.kind === "absent") return;
    const reason = now.kind === "dead" ? now.reason : "it was unmounted";
    const message = `lxcfs at "${path}" has ended (${reason}): containers see the host's memory and CPUs. ` +
      `${
        now.kind === "dead" ? `Unmount it (umount -l ${path}) and start` : "Start"
      } it again; they see their limits then, without a restart`;
    log.warn({ path, reason }, message);
    const time = new Date().toISOString();
    this.#warning = {
      uuid: randomUUID(),
      location: "none",
      project: "",
      type: "LXCFS has ended",
      severity: "moderate",
      status: "new",
      count: 1,
      first_seen_at: time,
      last_seen_at: time,
      last_message: message,
      entity_url: "/1.0",
    };
  }

  /** Unmounts dead files of LXCFS in a running container and mounts its live ones. Mounts of a user or of the container itself are kept. */
  async #bring(name: string, state: LxcfsState): Promise<void> {
    const { runtime } = this.#options;
    const running = runtime.get(name);
    if (!running) return;
    const mounted = await mountsWithin(running.pid);
    const isAlive = (target: string): boolean => state.kind === "alive" && mounted.get(target)?.device === state.device;
    for (const [target, { isLxcfs }] of mounted) {
      if (!isLxcfs || !/^\/(proc|sys)\//.test(target) || isAlive(target)) continue;
      await runtime.detach(name, this.#mount(target), { lazy: true, whatever: true });
      mounted.delete(target);
    }
    if (state.kind !== "alive") return;
    for (const target of state.targets) if (!mounted.has(target)) await runtime.attach(name, this.#mount(target));
  }

  #mount(target: string): MountSpec {
    return { source: `${this.#options.path}${target}`, target, recursive: false };
  }
}

function same(one: LxcfsState, other: LxcfsState): boolean {
  return one.kind === other.kind &&
    (one.kind !== "alive" || other.kind !== "alive" || one.device === other.device);
}
