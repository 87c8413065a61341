import { randomUUID } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import { userNamespace } from "../../host/mounts/idmap.ts";
import { moveMount } from "../../host/mounts/namespace.ts";
import { closeFd } from "../../host/process/process.ts";
import { makeNullDevice } from "../../host/files/special_file.ts";
import type { FileProcesses } from "../files/file_processes.ts";
import { type ClonedMount, cloneSource } from "../files/mount_source.ts";
import { withoutDevices } from "./mounts.ts";
import type { ContainerSpec, MountSpec } from "../runtime.ts";

/** What crun needs of a container in the runtime's mount namespace: its root filesystem, its devices' mounts, and files of its own. */

/** @param directory Of the daemon, with its links resolved. @returns Where they are there: a directory of every host, which is not touched, and which
 * is not above the daemon's own, since it would hide it. */
export function stageBeside(directory: string): string {
  const isFree = (stage: string) => !`${directory}/`.startsWith(`${stage}/`) && existsSync(stage);
  return ["/mnt", "/media"].find(isFree) ?? "/srv";
}

/** A mount of a container, and its copy for it. */
export interface StagedMount extends ClonedMount {
  readonly mount: MountSpec;
  /** The mount that it is below, and comes along with. */
  readonly above?: MountSpec;
}

/** Detached copies of the root and of every mount, made where the pools are mounted: in the host's namespace, which the runtime's need not follow.
 * What is mounted below a path of the host is mounted by itself: crun 1.8 takes a tree of mounts for an unprivileged container, but mounts its top alone.
 * @returns The root first. */
export async function cloneAll(processes: FileProcesses, spec: ContainerSpec): Promise<StagedMount[]> {
  const namespace = spec.idmap && await userNamespace(spec.idmap);
  const cloned: StagedMount[] = [];
  const clone = async (mount: MountSpec, above?: MountSpec) => {
    const copy = await cloneSource(processes, spec.name, mount, {
      namespace: mount.shifted ? namespace : undefined,
      recursive: mount.recursive ?? true,
      separate: mount.foreign ?? false,
      options: withoutDevices(mount.options),
      // crun makes it what is asked for.
      propagation: mount.propagation === undefined ? undefined : "as-source",
    }).catch((error) => {
      if (!(error instanceof LidoError) || mount.device === undefined) throw error;
      throw new LidoError(error.code, `Failed to start device "${mount.device}": ${error.message}`, { cause: error });
    });
    cloned.push({ ...copy, mount, ...(above ? { above } : {}) });
    return copy;
  };
  try {
    await clone({ source: spec.rootfs, target: "/", shifted: spec.rootfsShifted });
    for (const mount of spec.mounts) {
      const { submounts } = await clone(mount);
      for (const path of submounts) {
        const { subPath } = mount;
        const below = { subPath: subPath ? join(subPath, path) : path, target: join(mount.target, path) };
        await clone({ ...mount, ...below, recursive: false }, mount);
      }
    }
    return cloned;
  } catch (error) {
    closeAll(cloned);
    throw error;
  }
}

/** Called inside the namespace: puts them where crun will find them, with what else of files it needs. @returns The mounts with their sources there. */
export function place(stage: string, spec: ContainerSpec, [root, ...rest]: readonly StagedMount[]): MountSpec[] {
  const directory = makeStage(stage, spec.name);
  writeFileSync(join(directory, "boot_id"), `${randomUUID()}\n`, { mode: 0o444 });
  makeDirectory(join(directory, "rootfs"), 0o711);
  moveMount(root!.tree, join(directory, "rootfs"));
  return rest.map(({ mount, tree, isDirectory }, index) => {
    const source = join(directory, `device-${index}`);
    if (isDirectory) makeDirectory(source, 0o711);
    else writeFileSync(source, "");
    moveMount(tree, source);
    return { ...mount, source, options: withoutDevices(mount.options) };
  });
}

/** Called inside the namespace. @returns Where a container's files there are. */
export function makeStage(stage: string, name: string): string {
  const directory = join(stage, name);
  makeDirectory(directory, 0o711);
  makeNullDevice(join(directory, "null"));
  return directory;
}

/** With exactly `mode`: mkdir's own is cut by the umask. */
export function makeDirectory(path: string, mode: number): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, mode);
}

export function closeAll(mounts: readonly ClonedMount[]): void {
  for (const { tree } of mounts) closeFd(tree);
}
