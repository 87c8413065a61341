import type { Poller, Watch } from "../../host/poll/poll.ts";
import { closeFd, isChild, listChildren, openPidfd, sendSignal, waitPid } from "../../host/process/process.ts";

const SIGKILL = 9;

/** What crun leaves to us, its subreaper: its helper, and the process that was to become a command it could not start. Nobody else waits for
 * them, and a zombie in a container's pid namespace keeps the container from ending. */
export class Orphans {
  readonly #poller: Poller;
  /** crun processes that somebody waits for. */
  readonly #awaited = new Set<number>();
  /** Commands that crun started, whose caller reaps them; one may be called "crun" too. */
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

  /** Of a command that nobody waits for any more: it is killed, and reaped when it is dead, which is after its container is thawed. */
  abandon(pid: number): void {
    this.#commands.delete(pid);
    if (!isChild(pid)) return;
    if (!this.#watched.has(pid)) this.#reapAtDeath(pid);
    sendSignal(this.#watched.get(pid)!.pidfd, SIGKILL);
  }

  /** To be called when a crun has ended: what it left is our child by then, though it may not be dead yet. Each is reaped when it is. */
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
      // It may have become a command meanwhile.
      if (!this.#isKnown(pid) && isChild(pid)) waitPid(pid);
    });
  }

  /** Watches no more. */
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
