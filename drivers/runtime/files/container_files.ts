import { LidoError, messageOf } from "../../../api/errors.ts";
import { existsBeneathFd, readBeneathFd } from "../../host/files/beneath.ts";
import { openLocalRoot } from "../../host/files/container_root.ts";
import { closeFd } from "../../host/process/process.ts";
import type { FileProcesses } from "./file_processes.ts";

/** Limit on a container's file that is read, such as its list of users. */
const readBytesMax = 1 << 20;

export interface ContainerId {
  readonly name: string;
  /** Pid of its init. */
  readonly pid: number;
}

/** Files of a running container, as its processes find them. Files on its root's own filesystem are read directly; filesystems that the container
 * mounted may never answer, so a file process reads those. */
export class ContainerFiles {
  readonly #processes: FileProcesses;

  constructor(processes: FileProcesses) {
    this.#processes = processes;
  }

  /** @returns undefined when there is none. @throws {LidoError} bad_request when it is no regular file, larger than a MiB, a file of the kernel's, or
   * its filesystem does not answer. */
  async read({ name, pid }: ContainerId, path: string): Promise<Uint8Array | undefined> {
    const atOnce = local(
      pid,
      (root) => ({ content: readBeneathFd(root, path, { inRoot: true, maxBytes: readBytesMax }) }),
    );
    if (atOnce) return atOnce.content;
    const task = { do: "read", pid, path, maxBytes: readBytesMax } as const;
    const { answer, content } = await explained(`Cannot read "${path}"`, this.#processes.ask(name, task));
    return answer.isThere ? content : undefined;
  }

  /** A symbolic link counts as itself. */
  async exists({ name, pid }: ContainerId, path: string): Promise<boolean> {
    const atOnce = local(pid, (root) => ({ isThere: existsBeneathFd(root, path) }));
    if (atOnce) return atOnce.isThere;
    const asked = this.#processes.ask(name, { do: "exists", pid, path });
    return (await explained(`Cannot look at "${path}"`, asked)).answer.isThere ?? false;
  }

  /** Removes an empty directory; a missing one, or one that is not empty, is no error. */
  async removeDirectory({ name, pid }: ContainerId, path: string): Promise<void> {
    await this.#processes.ask(name, { do: "removeDirectory", pid, path });
  }
}

/** @returns undefined when a mount is on the way, or the root is not the one that the container was started with. */
function local<T>(pid: number, work: (root: number) => T): T | undefined {
  const root = openRootOf(pid);
  if (root === undefined) return undefined;
  try {
    return work(root);
  } catch (error) {
    if ((error as { code?: string }).code === "EXDEV") return undefined;
    throw error;
  } finally {
    closeFd(root);
  }
}

/** @throws {LidoError} bad_request when the container has ended meanwhile. */
function openRootOf(pid: number): number | undefined {
  try {
    return openLocalRoot(pid);
  } catch (error) {
    // While a process ends, /proc first shows no root, then no mounts, then no process.
    if (!["ENOENT", "EINVAL", "ESRCH"].includes((error as { code?: string }).code ?? "")) throw error;
    throw new LidoError("bad_request", "Instance is not running");
  }
}

async function explained<T>(what: string, asked: Promise<T>): Promise<T> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof LidoError) throw error;
    // An error of its filesystem, or no answer from it.
    throw new LidoError("bad_request", `${what} in the instance: ${messageOf(error)}`);
  }
}
