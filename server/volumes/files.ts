import type { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";
import type { DirectoryEntry, FileInfo } from "../../drivers/host/files/tree_files.ts";
import * as tree from "../../drivers/host/files/tree_files.ts";
import type { IdMap } from "../../drivers/host/id_map.ts";
import { idInside, idOnDisk } from "./owners.ts";

/** A tree whose files users see, with the owners that its containers see. */
export interface FileTree {
  /** Path on the host. */
  readonly root: string;
  /** The map that its files were made with; absent: ids are as on disk. */
  readonly map: IdMap | undefined;
  /** For messages, such as `volume "v"`. */
  readonly name: string;
}

export interface FileChange {
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  readonly mode?: number | undefined;
}

export interface FileMaking extends FileChange {
  readonly type: "file" | "directory" | "symlink";
  readonly append: boolean;
  /** Which of these are also set when the file exists. */
  readonly changes: ReadonlySet<"uid" | "gid" | "mode">;
}

const modes = { file: 0o644, directory: 0o755, symlink: 0o777 };

/** @throws {LidoError} not_found. */
export function statFile(of: FileTree, path: string): FileInfo {
  return explained(of, path, () => {
    const info = tree.statIn(of.root, path);
    if (!info) throw new LidoError("not_found", `Not Found: ${JSON.stringify(path)}`, { lxdText: "Not Found" });
    return inside(of, info);
  });
}

export function linkTarget(of: FileTree, path: string): string {
  return explained(of, path, () => tree.linkTargetIn(of.root, path));
}

export function readFile(of: FileTree, path: string): { stream: Readable; sizeBytes: number } {
  return explained(of, path, () => tree.readIn(of.root, path));
}

export async function listNames(of: FileTree, path: string): Promise<string[]> {
  return await explainedLater(of, path, () => tree.namesIn(of.root, path));
}

export async function listEntries(of: FileTree, path: string): Promise<DirectoryEntry[]> {
  const entries = await explainedLater(of, path, () => tree.entriesIn(of.root, path));
  return entries.map(({ name, info }) => ({ name, info: inside(of, info) }));
}

/** Creates a file, directory or link, or overwrites a file.
 * @param content Of a file. @param target Of a link. */
export async function makeFile(
  of: FileTree,
  path: string,
  making: FileMaking,
  content: Readable | { target: string },
): Promise<void> {
  const owner = { uid: idOnDisk(of.map, "uid", making.uid ?? 0), gid: idOnDisk(of.map, "gid", making.gid ?? 0) };
  const mode = making.mode ?? modes[making.type];
  await explainedLater(of, path, async () => {
    const isThere = tree.statIn(of.root, path) !== undefined;
    if (making.type === "directory") tree.makeDirectoryIn(of.root, path, owner, mode);
    else if ("target" in content) tree.makeLinkIn(of.root, path, content.target, owner);
    else await tree.writeIn(of.root, path, content, { append: making.append, owner, mode });
    if (isThere) tree.changeIn(of.root, path, chosen({ ...owner, mode }, making.changes));
  });
}

export function deleteFile(of: FileTree, path: string): void {
  explained(of, path, () => {
    if (/^[/.]*$/.test(path)) throw new LidoError("bad_request", `Cannot delete the root of ${of.name}`);
    tree.removeIn(of.root, path);
  });
}

function chosen(all: Required<FileChange>, keys: ReadonlySet<string>): { uid?: number; gid?: number; mode?: number } {
  return Object.fromEntries(Object.entries(all).filter(([key]) => keys.has(key)));
}

function inside(of: FileTree, info: FileInfo): FileInfo {
  return { ...info, uid: idInside(of.map, "uid", info.uid), gid: idInside(of.map, "gid", info.gid) };
}

function explained<T>(of: FileTree, path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw explain(of, path, error);
  }
}

async function explainedLater<T>(of: FileTree, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw explain(of, path, error);
  }
}

/** Turns the kernel's error codes into errors for the user. */
function explain(of: FileTree, path: string, error: unknown): unknown {
  if (error instanceof LidoError) return error;
  const refuse = (why: string) => new LidoError("bad_request", `Cannot use "${path}": ${why}`);
  switch ((error as { code?: string }).code) {
    case "ENOENT":
      return new LidoError("not_found", `Not Found: ${JSON.stringify(path)}`, { lxdText: "Not Found" });
    case "EEXIST":
      return new LidoError("conflict", `"${path}" already exists`);
    case "ENOTDIR":
      return refuse("a part of the path is no directory");
    case "ELOOP":
    case "EXDEV":
      return refuse("a symbolic link in it leads out or nowhere");
    case "ENOTEMPTY":
      return refuse("the directory is not empty");
    case "ENAMETOOLONG":
      return refuse("a part of the path is too long");
    case "ENOSPC":
    case "EDQUOT":
      return refuse(`no space is left in ${of.name}`);
    case "EFBIG":
      return refuse("the file would be too large for the filesystem");
    case "EROFS":
      return refuse(`${of.name} is read-only`);
    case "EPERM":
    case "EACCES":
      return refuse("it is protected against changes");
    default:
      return error;
  }
}
