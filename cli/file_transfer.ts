/** Transfer of files and trees to and from the daemon's side. A container may have prepared what comes from there: no link of its is followed
 * here, no name leads elsewhere, and setuid bits are not taken over. */
import { constants } from "node:fs";
import { chmod, type FileHandle, lstat, mkdir, open, readdir, readlink, stat, symlink } from "node:fs/promises";
import { basename, dirname, join, posix, resolve } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { FileEntry } from "../api/types.ts";
import { ApiError, reasonOf, UsageError } from "./client/errors.ts";
import { openStdin, openStdout } from "./exec/descriptors.ts";
import { metered, type ProgressLine, progressLine } from "./output/progress.ts";
import type { Making, RemoteFiles } from "./remote_files.ts";
import type { Io } from "./verb.ts";

export interface PushOptions {
  readonly recursive: boolean;
  readonly createDirs: boolean;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  readonly mode?: number | undefined;
}

/** @param sources Local paths; "-" is stdin. @param target A directory when it ends with a slash or is one. */
export async function push(
  io: Io,
  remote: RemoteFiles,
  sources: readonly string[],
  target: string,
  options: PushOptions,
): Promise<void> {
  using line = await progressLine(io);
  const transfer = new Push(io, remote, options, line);
  const isDirectory = target.endsWith("/") || sources.length > 1 || (await remote.stat(target))?.type === "directory";
  if (options.createDirs) await transfer.makeDirectories(isDirectory ? target : posix.dirname(target));
  for (const source of sources) {
    const info = source === "-" ? undefined : await stat(source).catch((error) => {
      throw new UsageError(`Cannot read "${source}": ${reasonOf(error)}`);
    });
    if (info?.isDirectory() && !options.recursive) {
      throw new UsageError(`Cannot push "${source}": it is a directory; use --recursive`);
    }
    if (source === "-" && isDirectory) throw new UsageError("Cannot push stdin into a directory: name the file");
    const name = basename(resolve(source));
    const place = isDirectory || info?.isDirectory() ? posix.join(target, name) : target;
    if (info?.isDirectory()) await transfer.tree(source, place);
    else await transfer.file(source, place);
  }
}

class Push {
  readonly #io: Io;
  readonly #remote: RemoteFiles;
  readonly #options: PushOptions;
  readonly #line: ProgressLine | undefined;

  constructor(io: Io, remote: RemoteFiles, options: PushOptions, line: ProgressLine | undefined) {
    this.#io = io;
    this.#remote = remote;
    this.#options = options;
    this.#line = line;
  }

  async makeDirectories(path: string): Promise<void> {
    const parts = posix.normalize(`/${path}`).split("/").filter(Boolean);
    for (let depth = 1; depth <= parts.length; depth++) {
      const { uid = 0, gid = 0 } = this.#options;
      await this.#remote.make("directory", parts.slice(0, depth).join("/"), { uid, gid, mode: 0o755, changes: [] });
    }
  }

  async file(source: string, place: string): Promise<void> {
    if (source === "-") {
      const { uid = 0, gid = 0, mode = 0o644 } = this.#options;
      const making = { uid, gid, mode, changes: this.#asked() };
      return await this.#remote.make("file", place, making, this.#body(await openStdin(), place));
    }
    const handle = await open(source, constants.O_RDONLY | constants.O_NONBLOCK).catch((error) => {
      throw new UsageError(`Cannot read "${source}": ${reasonOf(error)}`);
    });
    try {
      const info = await handle.stat();
      if (!info.isFile()) throw new UsageError(`Cannot push "${source}": it is no regular file`);
      const content = handle.createReadStream({ highWaterMark: 1 << 18, autoClose: false });
      await this.#remote.make("file", place, this.#making(info), this.#body(content, source, info.size));
    } finally {
      await handle.close();
    }
  }

  async tree(source: string, place: string): Promise<void> {
    await this.#remote.make("directory", place, this.#making(await stat(source), 0o111));
    for (const entry of (await readdir(source, { withFileTypes: true })).sort((a, b) => a.name < b.name ? -1 : 1)) {
      const from = join(source, entry.name), to = posix.join(place, entry.name);
      if (entry.isDirectory()) await this.tree(from, to);
      else if (entry.isFile()) await this.file(from, to);
      else if (entry.isSymbolicLink()) await this.#link(from, to);
      else this.#io.err(`Passed over "${from}": it is a FIFO, socket or device\n`);
    }
  }

  async #link(source: string, place: string): Promise<void> {
    const { uid, gid } = await lstat(source);
    const making = { uid: this.#options.uid ?? uid, gid: this.#options.gid ?? gid, changes: [] };
    try {
      await this.#remote.make("symlink", place, making, await readlink(source));
    } catch (error) {
      // As with files, the new one replaces an existing one.
      if (!(error instanceof ApiError && error.status === 409)) throw error;
      await this.#remote.remove(place);
      await this.#remote.make("symlink", place, making, await readlink(source));
    }
  }

  /** Owner and mode of the local file, unless given by options. @param more Mode bits that a directory gets besides a given mode. */
  #making(info: { uid: number; gid: number; mode: number }, more = 0): Making {
    const { uid = info.uid, gid = info.gid, mode } = this.#options;
    return { uid, gid, mode: mode === undefined ? info.mode & 0o7777 : mode | more, changes: this.#asked() };
  }

  #asked(): ("uid" | "gid" | "mode")[] {
    return (["uid", "gid", "mode"] as const).filter((key) => this.#options[key] !== undefined);
  }

  #body(content: Readable, name: string, sizeBytes?: number): Readable {
    return Readable.from(metered(content, this.#line, name, sizeBytes), { objectMode: false });
  }
}

export interface PullOptions {
  readonly recursive: boolean;
  readonly createDirs: boolean;
}

/** @param target A local path; "-" is stdout. A directory when it ends with a slash or is one. */
export async function pull(
  io: Io,
  remote: RemoteFiles,
  sources: readonly string[],
  target: string,
  options: PullOptions,
): Promise<void> {
  using line = await progressLine(io);
  if (target === "-") {
    const all = async function* () {
      for (const source of sources) {
        const { content, sizeBytes } = await remote.read(source);
        yield* metered(content, line, source, sizeBytes);
      }
    };
    await pipeline(all, await openStdout());
    return;
  }
  const isDirectory = target.endsWith("/") || sources.length > 1 ||
    await stat(target).then((info) => info.isDirectory(), () => false);
  if (options.createDirs) await mkdir(isDirectory ? target : dirname(target), { recursive: true });
  for (const source of sources) {
    const info = await remote.stat(source);
    if (!info) throw new UsageError(`Cannot pull "${source}": there is no such file`);
    if (info.type === "directory" && !options.recursive) {
      throw new UsageError(`Cannot pull "${source}": it is a directory; use --recursive`);
    }
    const name = basename(posix.normalize(`/${source}`)) || "root";
    const place = isDirectory ? join(target, name) : target;
    if (info.type === "directory") await pullTree(io, remote, line, source, place, info.mode);
    else await pullFile(remote, line, source, place, { isTop: true });
  }
}

async function pullTree(
  io: Io,
  remote: RemoteFiles,
  line: ProgressLine | undefined,
  source: string,
  place: string,
  mode: number,
): Promise<void> {
  await makeDirectory(place);
  const names = new Set<string>();
  for (const entry of await remote.list(source)) {
    // The listing of a directory that changes meanwhile may have a name twice.
    if (names.has(entry.name) || !isName(entry.name)) continue;
    names.add(entry.name);
    const from = posix.join(source, entry.name), to = join(place, entry.name);
    try {
      if (entry.type === "directory") await pullTree(io, remote, line, from, to, entry.mode);
      else if (entry.type === "file" || entry.type === "symlink") {
        await pullFile(remote, line, from, to, { isTop: false });
      } else io.err(`Passed over "${from}": it is a FIFO, socket or device\n`);
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 404)) throw error;
      io.err(`Passed over "${from}": it went meanwhile\n`);
    }
  }
  // Last: the mode may deny writing even to the owner.
  await chmod(place, mode & 0o777);
}

async function makeDirectory(place: string): Promise<void> {
  try {
    await mkdir(place, 0o700);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    if (!(await lstat(place)).isDirectory()) throw new UsageError(`Cannot write "${place}": it is no directory`);
  }
}

async function pullFile(
  remote: RemoteFiles,
  line: ProgressLine | undefined,
  source: string,
  place: string,
  { isTop }: { isTop: boolean },
): Promise<void> {
  const { info, content, sizeBytes } = await remote.read(source);
  if (info.type === "symlink") {
    const chunks: Uint8Array[] = [];
    for await (const chunk of content) chunks.push(chunk as Uint8Array);
    return await symlink(Buffer.concat(chunks).toString("utf8"), place);
  }
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;
  const handle = await open(place, O_WRONLY | O_CREAT | O_TRUNC | (isTop ? 0 : O_NOFOLLOW), 0o600);
  try {
    for await (const chunk of metered(content, line, source, sizeBytes)) await writeAll(handle, place, chunk);
    await handle.chmod(info.mode & 0o777);
  } finally {
    await handle.close();
  }
}

function isName(name: FileEntry["name"]): boolean {
  return name !== "" && name !== "." && name !== ".." && !name.includes("/") && !name.includes("\0");
}

async function writeAll(handle: FileHandle, place: string, bytes: Uint8Array): Promise<void> {
  try {
    for (let done = 0; done < bytes.length;) done += (await handle.write(bytes, done)).bytesWritten;
  } catch (error) {
    throw new Error(`Cannot write "${place}": ${reasonOf(error)}`, { cause: error });
  }
}
