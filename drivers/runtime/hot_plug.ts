import { statSync } from "node:fs";
import { LidoError } from "../../api/errors.ts";
import { HotPlugThread } from "../host/hot_plug.ts";
import type { HotPlugAnswer, Inside, MountRoot } from "../host/hot_plug_messages.ts";
import { cloneMountIn, userNamespace } from "../host/idmap.ts";
import { closeFd } from "../host/process.ts";
import { findHolders } from "./holders.ts";
import { withSource } from "./mount_source.ts";
import type { DetachOptions, IdMap, MountPlace, MountSpec } from "./runtime.ts";

/** What stands in the way of a mount, in words. */
const reasons: Readonly<Record<string, string>> = {
  ELOOP: "a symbolic link is there, or too many are on the way",
  ENOTDIR: "something on the way is not a directory",
  EISDIR: "a directory is there",
  EEXIST: "something was made there just then",
  EROFS: "the path is missing and cannot be made on a read-only filesystem",
  EACCES: "the path is missing and the instance's root may not make it",
  ENOSPC: "the path is missing and there is no space to make it",
  EDQUOT: "the path is missing and there is no space to make it",
  EAGAIN: "the instance keeps renaming directories on the way",
  ETIMEDOUT: "a filesystem of the instance does not answer",
  ESRCH: "the instance has ended",
  ENOENT:
    "the instance has ended, a directory on the way was removed just then, or a symbolic link on the way leads nowhere",
};

/** Mounts come and go in the namespace of a container that runs. The work inside is done by a thread of its own (`drivers/host/hot_plug.ts`):
 * the container may have put a filesystem in the way that never answers. */
export class HotPlug {
  readonly #thread = new HotPlugThread();

  async attach(container: Inside, mount: MountSpec, idmap: IdMap | undefined): Promise<void> {
    const userNs = mount.shifted && idmap ? await userNamespace(idmap) : undefined;
    const { tree, isDirectory } = withSource(mount, (path, isDirectory) => ({
      isDirectory,
      tree: cloneMountIn(path, {
        namespace: userNs,
        recursive: mount.recursive ?? false,
        ...(mount.options ? { options: mount.options } : {}),
        // What is mounted below a shared mount is shared, as at a start; what is unbindable the kernel refuses there.
        propagation: mount.propagation?.replace("unbindable", "private"),
      }),
    }));
    try {
      const owner = { uid: rootOf(idmap?.uid), gid: rootOf(idmap?.gid) };
      const answer = await this.#ask(container, mount.target, { kind: "attach", tree, isDirectory, ...owner });
      if (answer.code !== undefined) throw refusal(`Cannot mount at "${mount.target}" in the instance`, answer.code);
    } finally {
      closeFd(tree);
    }
  }

  async detach(
    container: Inside,
    mount: MountPlace,
    options: DetachOptions & { processes: () => number[] },
  ): Promise<void> {
    const root = options.whatever ? undefined : mountRoot(mount);
    const answer = await this.#ask(container, mount.target, {
      kind: "detach",
      lazy: options.lazy ?? false,
      ...(root ? { root } : {}),
    });
    if (answer.code === undefined) return;
    const what = `Cannot unmount "${mount.target}" in the instance`;
    if (answer.code === "COVERED") {
      throw new LidoError("bad_request", `${what}: the instance has mounted something over it`);
    }
    if (answer.code !== "EBUSY") throw refusal(what, answer.code);
    const holders = findHolders(container.pid, options.processes(), answer.place ?? mount.target);
    const by = holders.length > 0 ? ` by ${holders.join(", ")}` : "";
    throw new LidoError("bad_request", `${what}: it is in use${by}`);
  }

  async isAttached(container: Inside, mount: MountPlace): Promise<boolean> {
    const root = mountRoot(mount);
    const answer = await this.#ask(container, mount.target, { kind: "look", ...(root ? { root } : {}) });
    if (answer.code !== undefined) throw refusal(`Cannot look at "${mount.target}" in the instance`, answer.code);
    return answer.isMounted ?? false;
  }

  close(): Promise<void> {
    return this.#thread.close();
  }

  #ask(
    { pid, pidfd }: Inside,
    target: string,
    request: DistributiveOmit<Parameters<HotPlugThread["ask"]>[0], "pid" | "pidfd" | "target">,
  ): Promise<HotPlugAnswer> {
    return this.#thread.ask({ ...request, pid, pidfd, target });
  }
}

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

function refusal(what: string, code: string): LidoError {
  return new LidoError("bad_request", `${what}: ${reasons[code] ?? code}`);
}

function rootOf(ranges: IdMap["uid"] | undefined): number {
  return ranges?.find(({ container }) => container === 0)?.host ?? 0;
}

/** @returns undefined when the source is gone. */
function mountRoot(mount: MountPlace): MountRoot | undefined {
  try {
    return withSource(mount, (path) => {
      const { dev: device, ino: inode } = statSync(path, { bigint: true });
      return { device, inode };
    });
  } catch {
    return undefined;
  }
}
