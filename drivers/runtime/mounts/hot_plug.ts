import { LidoError } from "../../../api/errors.ts";
import { userNamespace } from "../../host/mounts/idmap.ts";
import type { Inside } from "../../host/mounts/plug_messages.ts";
import { closeFd } from "../../host/process/process.ts";
import type { Attached, AttachedMounts } from "./attached.ts";
import type { FileAnswer, FileTask, WrittenRoot } from "../files/file_messages.ts";
import { type FileProcesses, NotAnswered } from "../files/file_processes.ts";
import { cloneSource, identify } from "../files/mount_source.ts";
import type { IdMap } from "../../host/id_map.ts";
import type { DetachOptions, MountPlace, MountSpec } from "../runtime.ts";
import type { StagedMount } from "./stage.ts";

/** Shorter, for requests that only make an error message better. */
const detailTimeoutMs = 3_000;
/** Maximum of processes searched for those that keep a mount busy. */
const processesMax = 10_000;

export interface PluggedContainer extends Inside {
  readonly name: string;
  /** The mounts that we attached to it. */
  readonly mounts: AttachedMounts;
}

/** Why a mount failed, in words. */
const reasons: Readonly<Record<string, string>> = {
  ELOOP: "a symbolic link is there, or too many are on the way",
  ENOTDIR: "something on the way is not a directory",
  EISDIR: "a directory is there",
  EINVAL: "a file and a directory cannot be mounted on each other",
  EEXIST: "something was made there just then",
  EROFS: "the path is missing and cannot be made on a read-only filesystem",
  EACCES: "the path is missing and the instance's root may not make it",
  ENOSPC: "the path is missing and there is no space to make it",
  EDQUOT: "the path is missing and there is no space to make it",
  EAGAIN: "the instance keeps renaming directories on the way",
  ETIMEDOUT: "a filesystem of the instance does not answer",
  ECONNABORTED: "a filesystem of the instance does not answer",
  EIO: "a filesystem of the instance fails",
  ENOTCONN: "a filesystem of the instance does not answer",
  ESRCH: "the instance has ended",
  ENOENT:
    "nothing can be made there, as in /proc; or the instance has ended, a directory on the way was removed just then, or a symbolic link on the way leads nowhere",
};

/** Mounts and unmounts in the mount namespace of a running container. A file process (`file_processes.ts`) does the work inside: the container may
 * have put a filesystem in the way that never answers. Changes of one container run one after the other; other containers do not wait. */
export class HotPlug {
  readonly #processes: FileProcesses;
  readonly #queues = new Map<string, Promise<unknown>>();

  constructor(processes: FileProcesses) {
    this.#processes = processes;
  }

  attach(container: PluggedContainer, mount: MountSpec, idmap: IdMap | undefined): Promise<void> {
    return this.#inTurn(container, async () => {
      const { tree, isDirectory } = await cloneSource(this.#processes, container.name, mount, {
        namespace: mount.shifted && idmap ? await userNamespace(idmap) : undefined,
        recursive: mount.recursive ?? false,
        options: mount.options ?? [],
        // Below a shared mount the new one is shared, as at a start; there the kernel refuses an unbindable one.
        propagation: mount.propagation?.replace("unbindable", "private"),
      });
      try {
        const task = {
          do: "attach",
          pid: container.pid,
          target: mount.target,
          isDirectory,
          uid: rootOf(idmap?.uid),
          gid: rootOf(idmap?.gid),
        } as const;
        const answer = await this.#ask(container, task, tree);
        if (answer.code !== undefined) throw refusal(`Cannot mount at "${mount.target}" in the instance`, answer.code);
        if (answer.root) container.mounts.set(attached(mount, answer.root, answer.below));
      } finally {
        closeFd(tree);
      }
    });
  }

  detach(
    container: PluggedContainer,
    mount: MountPlace,
    options: DetachOptions & { processes: () => Promise<number[]> },
  ): Promise<void> {
    return this.#inTurn(container, async () => {
      const known = options.whatever ? undefined : container.mounts.find(mount);
      const root = options.whatever ? undefined : known?.root ?? await this.#rootOf(container, mount);
      const { pid } = container, { target } = mount, below = known?.below ?? [], lazy = options.lazy ?? false;
      const answer = await this.#ask(container, { do: "detach", pid, target, root, below, lazy });
      if (answer.code === undefined) return container.mounts.delete(mount);
      if (known && answer.below) container.mounts.set({ ...known, below: answer.below });
      const what = `Cannot unmount "${target}" in the instance`;
      if (answer.code === "COVERED") {
        throw new LidoError("bad_request", `${what}: the instance has mounted something over it`);
      }
      if (answer.code !== "EBUSY") throw refusal(what, answer.code);
      const holders = await this.#holders(container, await options.processes(), {
        target: answer.place ?? target,
        below: answer.below ?? below,
      });
      const by = holders.length > 0 ? ` by ${holders.join(", ")}` : "";
      throw new LidoError("bad_request", `${what}: it is in use${by}`);
    });
  }

  isAttached(container: PluggedContainer, mount: MountPlace): Promise<boolean> {
    return this.#inTurn(container, async () => {
      const { pid } = container, { target } = mount;
      const root = container.mounts.find(mount)?.root ?? await this.#rootOf(container, mount);
      const answer = await this.#ask(container, { do: "isAttached", pid, target, root });
      if (answer.code !== undefined) throw refusal(`Cannot look at "${target}" in the instance`, answer.code);
      return answer.isMounted ?? false;
    });
  }

  /** Records which mounts of a container that has just started are ours. @param staged The mounts that it was started with. */
  started(container: PluggedContainer, staged: readonly StagedMount[]): Promise<void> {
    const own = staged.filter(({ above }) => above === undefined);
    const found = own.map(async ({ mount, root }): Promise<Attached> => {
      // A volume's root identifies it: nothing replaces it.
      if (!mount.foreign) return attached(mount, root);
      const below = staged.filter(({ above }) => above === mount)
        .map(({ mount: { target }, root }) => ({ target, root }));
      const { pid } = container, { target } = mount;
      const answer = await this.#tell(container, { do: "locate", pid, target, root, below });
      return attached(mount, answer.root ?? root, answer.below);
    });
    return this.#inTurn(container, async () => container.mounts.set(...await Promise.all(found)));
  }

  async #inTurn<T>({ name }: PluggedContainer, work: () => Promise<T>): Promise<T> {
    const turn = (this.#queues.get(name) ?? Promise.resolve()).then(work);
    const over = turn.then(() => {}, () => {});
    this.#queues.set(name, over);
    try {
      return await turn;
    } finally {
      if (this.#queues.get(name) === over) this.#queues.delete(name);
    }
  }

  async #ask({ name, pidfd }: PluggedContainer, task: FileTask, ...fds: number[]): Promise<FileAnswer> {
    try {
      return (await this.#processes.ask(name, task, { fds: [pidfd, ...fds] })).answer;
    } catch (error) {
      if (error instanceof NotAnswered) return { code: error.code };
      throw error;
    }
  }

  /** A process's command line may lie in a file that never answers: then no process is named. */
  async #holders(
    container: PluggedContainer,
    processes: number[],
    mount: { readonly target: string; readonly below: readonly string[] },
  ): Promise<readonly string[]> {
    const { pid } = container;
    const task = { do: "holders", pid, processes: processes.slice(0, processesMax), ...mount } as const;
    return (await this.#tell(container, task)).holders ?? [];
  }

  /** For optional details: an empty answer on any failure. */
  async #tell({ name, pidfd }: PluggedContainer, task: FileTask): Promise<FileAnswer> {
    try {
      return (await this.#processes.ask(name, task, { fds: [pidfd], timeoutMs: detailTimeoutMs })).answer;
    } catch {
      return {};
    }
  }

  /** @returns undefined when the source is gone, or does not answer. */
  async #rootOf(
    { name }: PluggedContainer,
    mount: MountPlace,
  ): Promise<WrittenRoot | undefined> {
    try {
      return await identify(this.#processes, name, mount, detailTimeoutMs);
    } catch {
      return undefined;
    }
  }
}

function refusal(what: string, code: string): LidoError {
  return new LidoError(code === "ETIMEDOUT" ? "unavailable" : "bad_request", `${what}: ${reasons[code] ?? code}`);
}

function attached(
  { source, subPath, target }: MountSpec,
  root: WrittenRoot,
  below: readonly string[] = [],
): Attached {
  return { source, target, root, below, ...(subPath ? { subPath } : {}) };
}

function rootOf(ranges: IdMap["uid"] | undefined): number {
  return ranges?.find(({ container }) => container === 0)?.host ?? 0;
}
