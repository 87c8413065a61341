import { statSync } from "node:fs";
import { join } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import { openBeneath } from "../../host/files/beneath.ts";
import { cloneMountIn } from "../../host/mounts/idmap.ts";
import { mayHang } from "../../host/mounts/mounts.ts";
import type { MountRoot } from "../../host/mounts/plug_messages.ts";
import { closeFd } from "../../host/process/process.ts";
import { reasonOf } from "../../host/files/reasons.ts";
import type { WrittenRoot } from "./file_messages.ts";
import { type FileProcesses, NotAnswered } from "./file_processes.ts";
import type { MountSpec } from "../runtime.ts";

const O_PATH = 0x200000;

/** Runs `work` with a path that leads only to a mount's source. A sub-path lies in a tree that containers write to: it is resolved beneath the source
 * without following symlinks and held by a descriptor, so that later swaps have no effect.
 * @param mount.foreign Whether the sub-path may be on another mount.
 * @throws {SystemCallError} ENOENT, or ELOOP for a symlink on the way. */
export function withSource<T>(
  mount: Pick<MountSpec, "source" | "foreign"> & { readonly subPath?: string | undefined },
  work: (path: string, isDirectory: boolean) => T,
): T {
  if (!mount.subPath) return work(mount.source, statSync(mount.source).isDirectory());
  const fd = openBeneath(mount.source, mount.subPath, { flags: O_PATH, acrossMounts: mount.foreign ?? false });
  try {
    const path = `/proc/self/fd/${fd}`;
    return work(path, statSync(path).isDirectory());
  } finally {
    closeFd(fd);
  }
}

export function identityOf(path: string): MountRoot {
  const { dev: device, ino: inode } = statSync(path, { bigint: true });
  return { device, inode };
}

export interface CloneOptions {
  /** Descriptor of a user namespace whose id map the mount gets. */
  readonly namespace?: number | undefined;
  readonly recursive: boolean;
  /** Whether the mounts below it are only listed, for the caller to clone them one by one. */
  readonly separate?: boolean;
  readonly options: readonly string[];
  readonly propagation?: string | undefined;
}

export interface ClonedMount {
  /** A detached mount; the caller closes it. */
  readonly tree: number;
  readonly isDirectory: boolean;
  readonly root: WrittenRoot;
  /** Paths within the mount. */
  readonly submounts: readonly string[];
}

/** Identifies a mount's source. @param instance The mount's owner. @param timeoutMs Limit on the wait for an answer. */
export async function identify(
  processes: FileProcesses,
  instance: string,
  { source, subPath, foreign = false }: Pick<MountSpec, "source" | "subPath" | "foreign">,
  timeoutMs: number,
): Promise<WrittenRoot> {
  if (!foreign && !mayHang(source)) return written(withSource({ source, subPath }, identityOf));
  const task = { do: "identify", source, subPath, foreign } as const;
  return (await processes.ask(instance, task, { timeoutMs })).answer.root!;
}

export function written({ device, inode, id }: MountRoot): WrittenRoot {
  return { device: String(device), inode: String(inode), id };
}

/** Creates a detached copy of a mount's source. A host path, and a pool's tree, may be on a filesystem that never answers: a file process looks it
 * up.
 * @param instance The mount's owner. @throws {LidoError} bad_request, naming the source, when it does not answer or cannot be used. */
export async function cloneSource(
  processes: FileProcesses,
  instance: string,
  { source, subPath, foreign = false }: Pick<MountSpec, "source" | "subPath" | "foreign">,
  options: CloneOptions,
): Promise<ClonedMount> {
  const { namespace, ...rest } = options;
  try {
    if (!foreign && !mayHang(source)) {
      return withSource({ source, subPath }, (path, isDirectory) => {
        const root = written(identityOf(path));
        return { isDirectory, root, submounts: [], tree: cloneMountIn(path, options) };
      });
    }
    const fds = namespace === undefined ? [] : [namespace];
    const { answer, fd } = await processes.ask(instance, { do: "clone", source, subPath, foreign, ...rest }, { fds });
    const { isDirectory = false, submounts = [] } = answer;
    return { tree: fd!, isDirectory, root: answer.root!, submounts };
  } catch (error) {
    throw unusable(subPath ? join(source, subPath) : source, error);
  }
}

/** @see Runtime.lookAtSource */
export async function lookAtSource(
  processes: FileProcesses,
  tenant: string,
  path: string,
): Promise<"directory" | "file" | "other" | undefined> {
  try {
    return (await processes.ask(tenant, { do: "look", path })).answer.type;
  } catch (error) {
    throw unusable(path, error);
  }
}

function unusable(path: string, error: unknown): unknown {
  if (error instanceof LidoError) return error;
  const reason = error instanceof NotAnswered ? error.message : reasonOf(error);
  if (reason === undefined) return error;
  return new LidoError("bad_request", `Cannot use source path "${path}": ${reason}`, { cause: error });
}
