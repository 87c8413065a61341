import { chmod, chown } from "node:fs/promises";
import { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";
import { CommandError, type PipedCommand } from "../../drivers/host/host.ts";
import { normal, type TarEntry } from "../archives/tar_reader.ts";
import { endOfArchive } from "../archives/tar_writer.ts";
import { unpackCommand } from "../archives/unpack.ts";

/** The trees in a backup, which may come from anybody: each entry is looked at before it is unpacked. */

const entriesMax = 20_000_000;

/** Splits a backup into its trees: those of the snapshots, then the volume's own. */
export class Sections {
  readonly #entries: AsyncGenerator<TarEntry>;
  readonly #snapshots: readonly string[];
  readonly #progress: (bytes: bigint) => void;
  #bytes = 0n;
  #count = 0;
  #next: { entry: TarEntry; root: string; path: string } | undefined;

  constructor(entries: AsyncGenerator<TarEntry>, snapshots: readonly string[], progress: (bytes: bigint) => void) {
    this.#entries = entries;
    this.#snapshots = snapshots;
    this.#progress = progress;
  }

  async *all(): AsyncGenerator<Section> {
    const expected = [...this.#snapshots.map((name) => `backup/volume-snapshots/${name}`), "backup/volume"];
    await this.#advance();
    for (const [index, root] of expected.entries()) {
      if (this.#next?.root !== root) {
        throw invalid(`"${root}" is missing, or not in its place (there is "${this.#next?.path ?? "the end"}")`);
      }
      const section = new Section(root, this.#snapshots[index], this.#within(root));
      yield section;
    }
    if (this.#next) throw invalid(`"${this.#next.path}" is not in the index`);
  }

  async *#within(root: string): AsyncGenerator<{ entry: TarEntry; path: string }> {
    for (; this.#next?.root === root; await this.#advance()) {
      yield this.#next;
      this.#progress(this.#bytes += BigInt(this.#next.entry.sizeBytes));
    }
  }

  async #advance(): Promise<void> {
    this.#next = undefined;
    for (;;) {
      const { done, value: entry } = await this.#entries.next();
      if (done) return;
      if (++this.#count > entriesMax) throw invalid(`it has more than ${entriesMax} files`);
      const path = normal(entry.name);
      if (path === undefined) throw invalid(`${JSON.stringify(entry.name)} leads out of the backup`);
      // The directories above the trees, which some writers name.
      if (/^backup(\/volume-snapshots)?$/.test(path) && entry.type === "directory") continue;
      const root = /^backup\/(volume|volume-snapshots\/[^/]+)(?=\/|$)/.exec(path)?.[0];
      if (root === undefined) throw invalid(`${JSON.stringify(entry.name)} belongs to no volume`);
      this.#next = { entry, root, path };
      return;
    }
  }
}

/** One tree of a backup. */
export class Section {
  readonly snapshot: string | undefined;
  readonly #root: string;
  readonly #entries: AsyncGenerator<{ entry: TarEntry; path: string }>;

  constructor(root: string, snapshot: string | undefined, entries: AsyncGenerator<{ entry: TarEntry; path: string }>) {
    this.#root = root;
    this.snapshot = snapshot;
    this.#entries = entries;
  }

  /** Unpacks it, each entry once it was found harmless. */
  async extract(pipe: (argv: readonly string[], stdin: Readable) => PipedCommand, target: string): Promise<void> {
    let top: TarEntry | undefined, failure: unknown;
    const symlinks = new Set<string>();
    const checked = async function* (this: Section) {
      try {
        for await (const { entry, path } of this.#entries) {
          check(entry, path, this.#root, symlinks);
          if (path === this.#root) top = entry;
          yield entry.header;
          yield* entry.blocks();
        }
        yield endOfArchive;
      } catch (error) {
        failure = error; // tar, which is ended by it, knows nothing of it
        throw error;
      }
    };
    const more = ["--delay-directory-restore", `--strip-components=${this.#root.split("/").length}`];
    const { stdout, done } = pipe(
      unpackCommand(target, "-", more),
      Readable.from(checked.call(this), { objectMode: false }),
    );
    stdout.resume();
    await done.catch((error) => {
      throw failure ?? withoutRoom(error) ?? error;
    });
    if (!top) return;
    if (top.type !== "directory") throw invalid(`"${this.#root}" is no directory`);
    await chown(target, top.uid, top.gid);
    await chmod(target, top.mode);
  }
}

/** tar says of a full disk, or a limit that is reached, only how far it came. */
function withoutRoom(error: unknown): LidoError | undefined {
  if (!(error instanceof CommandError) || !/Wrote only|No space left|quota exceeded/i.test(error.stderr)) {
    return undefined;
  }
  const [line] = error.stderr.trim().split("\n");
  return new LidoError("unavailable", `No space left on device, or the volume's limit is reached: ${line}`);
}

function check(entry: TarEntry, path: string, root: string, symlinks: Set<string>): void {
  const parts = path.split("/");
  for (let depth = 1; depth < parts.length; depth++) {
    if (symlinks.has(parts.slice(0, depth).join("/"))) {
      throw invalid(`${JSON.stringify(entry.name)} goes through a symbolic link of the backup`);
    }
  }
  if (entry.type === "symlink") symlinks.add(path);
  else symlinks.delete(path);
  if (entry.type === "character" || entry.type === "block") {
    throw invalid(`${JSON.stringify(entry.name)} is a device node`);
  }
  if (entry.type === "link" && !normal(entry.linkName)?.startsWith(`${root}/`)) {
    throw invalid(
      `${JSON.stringify(entry.name)} is a hard link out of its volume, to ${JSON.stringify(entry.linkName)}`,
    );
  }
}

function invalid(why: string): LidoError {
  return new LidoError("bad_request", `Invalid backup: ${why}`);
}
