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

/** What crun needs for a container in the runtime's mount namespace: its root filesystem, its devices' mounts, and generated files. */

/** @param directory The daemon's, with links resolved. @returns Path of the stages: a directory that every host has. It is not changed, and must not
 * be a parent of the daemon's own, which it would hide. */
export function stageBeside(directory: string): string {
  const isFree = (stage: string) => !`${directory}/`.startsWith(`${stage}/`) && existsSync(stage);
  return ["/mnt", "/media"].find(isFree) ?? "/srv";
}

/** A mount of a container, and its copy for the container. */
export interface StagedMount extends ClonedMount {
  readonly mount: MountSpec;
  /** The mount that it lies below and came with. */
  readonly above?: MountSpec;
}

/** Creates detached copies of the root and of every mount in the host's namespace, where the pools are mounted: the runtime's need not follow it.
 * Mounts below a host path are cloned one by one: crun 1.8 accepts a tree of mounts for an unprivileged container, but mounts only its top.
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
      // crun sets the requested propagation.
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

/** To be called in the runtime's namespace: puts mounts and files where crun finds them. @returns The mounts with their sources there. */
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

/** To be called in the runtime's namespace. @returns The container's directory there. */
export function makeStage(stage: string, name: string): string {
  const directory = join(stage, name);
  makeDirectory(directory, 0o711);
  makeNullDevice(join(directory, "null"));
  return directory;
}

/** With exactly `mode`: mkdir's is reduced by the umask. */
export function makeDirectory(path: string, mode: number): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, mode);
}

export function closeAll(mounts: readonly ClonedMount[]): void {
  for (const { tree } of mounts) closeFd(tree);
}
