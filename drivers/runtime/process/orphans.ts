import type { Poller, Watch } from "../../host/poll/poll.ts";
import { closeFd, isChild, listChildren, openPidfd, sendSignal, waitPid } from "../../host/process/process.ts";

const SIGKILL = 9;

/** Processes that crun leaves to the daemon, its subreaper: its helper, and the child that could not execute its command. No other code waits for
 * them, and a zombie in a container's pid namespace keeps the container from ending. */
export class Orphans {
  readonly #poller: Poller;
  /** crun processes that a caller waits for. */
  readonly #awaited = new Set<number>();
  /** Commands that crun started; their callers reap them. A command may be named "crun", too. */
  readonly #commands = new Set<number>();
  readonly #watched = new Map<number, { readonly watch: Watch; readonly pidfd: number }>();

  constructor(poller: Poller) {
    this.#poller = poller;
  }

  addAwaited(pid: number): void {
    this.#awaited.add(pid);
  }

  removeAwaited(pid: number): void {
    this.#awaited.delete(pid);
  }

  addCommand(pid: number): void {
    this.#commands.add(pid);
  }

  removeCommand(pid: number): void {
    this.#commands.delete(pid);
  }

  /** Kills a command that no caller waits for any more, and reaps it when it is dead: if its container is frozen, only after thaw. */
  abandon(pid: number): void {
    this.#commands.delete(pid);
    if (!isChild(pid)) return;
    if (!this.#watched.has(pid)) this.#reapAtDeath(pid);
    sendSignal(this.#watched.get(pid)!.pidfd, SIGKILL);
  }

  /** To be called when a crun has ended: its leftovers are our children by then, perhaps not dead yet. Each is reaped when it is dead. */
  reap(): void {
    for (const { pid, command } of listChildren()) {
      if (command === "crun" && !this.#isKnown(pid) && !this.#watched.has(pid)) this.#reapAtDeath(pid);
    }
  }

  #reapAtDeath(pid: number): void {
    const pidfd = openPidfd(pid);
    const watch = this.#poller.watch(pidfd);
    this.#watched.set(pid, { watch, pidfd });
    watch.arm("in", () => {
      this.#forget(pid);
      // It may have become a known command meanwhile.
      if (!this.#isKnown(pid) && isChild(pid)) waitPid(pid);
    });
  }

  /** Stops watching. */
  close(): void {
    for (const pid of [...this.#watched.keys()]) this.#forget(pid);
  }

  #forget(pid: number): void {
    const { watch, pidfd } = this.#watched.get(pid)!;
    watch.close();
    closeFd(pidfd);
    this.#watched.delete(pid);
  }

  #isKnown(pid: number): boolean {
    return this.#awaited.has(pid) || this.#commands.has(pid);
  }
}
