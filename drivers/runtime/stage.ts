import { randomUUID } from "node:crypto";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { userNamespace } from "../host/idmap.ts";
import { moveMount } from "../host/namespace.ts";
import { closeFd } from "../host/process.ts";
import { makeNullDevice } from "../host/special_file.ts";
import type { FileProcesses } from "./file_processes.ts";
import { type ClonedMount, cloneSource } from "./mount_source.ts";
import { withoutDevices } from "./mounts.ts";
import type { ContainerSpec, MountSpec } from "./runtime.ts";

/** What crun needs of a container in the runtime's mount namespace: its root filesystem, its devices' mounts, and files of its own. */

/** Where they are there; the host's own directory is not touched. */
export const stage = "/mnt";

/** Detached copies of the root and of every mount, made where the pools are mounted: in the host's namespace, which the runtime's need not follow. */
export async function cloneAll(processes: FileProcesses, spec: ContainerSpec): Promise<ClonedMount[]> {
  const namespace = spec.idmap && await userNamespace(spec.idmap);
  const cloned: ClonedMount[] = [];
  try {
    for (const mount of [{ source: spec.rootfs, shifted: spec.rootfsShifted } as Partial<MountSpec>, ...spec.mounts]) {
      cloned.push(
        await cloneSource(processes, spec.name, { ...mount, source: mount.source! }, {
          namespace: mount.shifted ? namespace : undefined,
          recursive: mount.recursive ?? true,
          options: withoutDevices(mount.options),
          // crun makes it what is asked for.
          propagation: mount.propagation === undefined ? undefined : "as-source",
        }),
      );
    }
    return cloned;
  } catch (error) {
    closeAll(cloned);
    throw error;
  }
}

/** Called inside the namespace: puts them where crun will find them, with what else of files it needs. @returns The mounts with their sources there. */
export function place(spec: ContainerSpec, [root, ...rest]: readonly ClonedMount[]): MountSpec[] {
  const directory = makeStage(spec.name);
  writeFileSync(join(directory, "boot_id"), `${randomUUID()}\n`, { mode: 0o444 });
  makeDirectory(join(directory, "rootfs"), 0o711);
  moveMount(root!.tree, join(directory, "rootfs"));
  return spec.mounts.map((mount, index) => {
    const { tree, isDirectory } = rest[index]!;
    const source = join(directory, `device-${index}`);
    if (isDirectory) makeDirectory(source, 0o711);
    else writeFileSync(source, "");
    moveMount(tree, source);
    return { ...mount, source, options: withoutDevices(mount.options) };
  });
}

/** Called inside the namespace. @returns Where a container's files there are. */
export function makeStage(name: string): string {
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
