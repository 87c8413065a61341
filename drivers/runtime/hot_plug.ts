import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { LidoError } from "../../api/errors.ts";
import { cloneMountIn, userNamespace } from "../host/idmap.ts";
import { HotPlugThread } from "../host/hot_plug.ts";
import { closeFd } from "../host/process.ts";
import { withSource } from "./mount_source.ts";
import type { IdMap, MountSpec } from "./runtime.ts";

/** Mounts come and go in the namespace of a container that runs. The work inside is done by a thread of its own (`drivers/host/hot_plug.ts`):
 * the container may have put a filesystem in the way that never answers. */
export class HotPlug {
  readonly #thread = new HotPlugThread();

  async attach(pid: number, mount: MountSpec, idmap: IdMap | undefined): Promise<void> {
    const userNs = mount.shifted && idmap ? await userNamespace(idmap) : undefined;
    const { tree, isDirectory } = withSource(mount, (path, isDirectory) => ({
      isDirectory,
      tree: cloneMountIn(path, {
        namespace: userNs,
        recursive: mount.recursive ?? false,
        readonly: mount.readonly ?? false,
        propagates: mount.propagation !== undefined,
      }),
    }));
    try {
      const owner = { uid: rootOf(idmap?.uid), gid: rootOf(idmap?.gid) };
      const failure = await this.#thread.attach({ pid, tree, target: mount.target, isDirectory, ...owner });
      if (failure) {
        throw new LidoError("bad_request", `Cannot mount at "${mount.target}" in the instance: ${failure.code}`);
      }
    } finally {
      closeFd(tree);
    }
  }

  async detach(pid: number, target: string, options: { lazy?: boolean; processes: () => number[] }): Promise<void> {
    const failure = await this.#thread.detach({ pid, target, lazy: options.lazy ?? false });
    if (!failure) return;
    if (failure.code !== "EBUSY") {
      throw new LidoError("bad_request", `Cannot unmount "${target}" in the instance: ${failure.code}`);
    }
    const holders = findHolders(options.processes(), target);
    throw new LidoError(
      "bad_request",
      `Cannot unmount "${target}" in the instance: it is in use${
        holders.length > 0 ? ` by ${holders.join(", ")}` : ""
      }`,
    );
  }

  close(): Promise<void> {
    return this.#thread.close();
  }
}

function rootOf(ranges: IdMap["uid"] | undefined): number {
  return ranges?.find(({ container }) => container === 0)?.host ?? 0;
}

const holdersMax = 8;

/** @returns "sh (pid 123)" for those that have their directory, root or an open file beneath `target`. */
function findHolders(pids: readonly number[], target: string): string[] {
  const found: string[] = [];
  const isBeneath = (path: string) => path === target || path.startsWith(`${target}/`);
  for (const pid of pids) {
    if (found.length >= holdersMax) break;
    try {
      const fds = readdirSync(`/proc/${pid}/fd`).map((fd) => `fd/${fd}`);
      const holds = ["cwd", "root", ...fds].some((link) => {
        try {
          // Links of a process in another mount namespace are shown from its own root.
          return isBeneath(readlinkSync(`/proc/${pid}/${link}`));
        } catch {
          return false;
        }
      });
      if (holds) found.push(`${readFileSync(`/proc/${pid}/comm`, "utf8").trim()} (pid ${pid})`);
    } catch { /* gone meanwhile */ }
  }
  return found;
}
