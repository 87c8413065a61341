import { LidoError } from "../../api/errors.ts";
import { clearXattrs } from "../../drivers/host/files/clear_xattrs.ts";
import type { Host } from "../../drivers/host/host.ts";
import type { WatchOptions } from "../../drivers/storage/driver.ts";
import { cleanPath, isXattrAllowed, type Member, memberOf } from "../archives/member.ts";
import { shown } from "../archives/tar_fields.ts";
import type { TarEntry } from "../archives/tar_reader.ts";
import { MemberError, TreeCheck } from "../archives/tree_stream.ts";
import { unpackTree } from "../archives/unpack.ts";

/** The trees in a backup. Its source is not trusted: each entry is checked before it is unpacked. */

const entriesMax = 20_000_000;

interface Placed {
  readonly entry: TarEntry;
  /** Path of the tree that the entry belongs to. */
  readonly root: string;
  readonly path: string;
}

/** Splits a backup into its trees: those of the snapshots, then the volume's own. */
export class Sections {
  readonly #entries: AsyncGenerator<TarEntry>;
  readonly #snapshots: readonly string[];
  #count = 0;
  #next: Placed | undefined;

  constructor(entries: AsyncGenerator<TarEntry>, snapshots: readonly string[]) {
    this.#entries = entries;
    this.#snapshots = snapshots;
  }

  async *all(): AsyncGenerator<Section> {
    const expected = [...this.#snapshots.map((name) => `backup/volume-snapshots/${name}`), "backup/volume"];
    await this.#advance();
    for (const [index, root] of expected.entries()) {
      if (this.#next?.root !== root) {
        throw invalid(`"${root}" is missing, or not in its place (there is ${this.#there()})`);
      }
      yield new Section(root, this.#snapshots[index], this.#within(root));
    }
    if (this.#next) throw invalid(`${this.#there()} is not in the index`);
  }

  #there(): string {
    return this.#next ? shown(this.#next.path) : '"the end"';
  }

  async *#within(root: string): AsyncGenerator<Placed> {
    for (; this.#next?.root === root; await this.#advance()) yield this.#next;
  }

  async #advance(): Promise<void> {
    this.#next = undefined;
    for (;;) {
      const { done, value: entry } = await this.#entries.next();
      if (done) return;
      if (++this.#count > entriesMax) throw invalid(`it has more than ${entriesMax} files`);
      const path = cleanPath(entry.name);
      if (path === undefined) {
        throw invalid(`${shown(entry.name)} leads out of the backup, or is longer than a path may be`);
      }
      // Entries of the directories above the trees, which some programs write.
      if (/^backup(\/volume-snapshots)?$/.test(path) && entry.type === "directory") continue;
      const root = /^backup\/(volume|volume-snapshots\/[^/]+)(?=\/|$)/.exec(path)?.[0];
      if (root === undefined) throw invalid(`${shown(entry.name)} belongs to no volume`);
      this.#next = { entry, root, path };
      return;
    }
  }
}

/** One tree of a backup. */
export class Section {
  readonly snapshot: string | undefined;
  readonly #root: string;
  readonly #entries: AsyncGenerator<Placed>;

  constructor(root: string, snapshot: string | undefined, entries: AsyncGenerator<Placed>) {
    this.#root = root;
    this.snapshot = snapshot;
    this.#entries = entries;
  }

  /** Unpacks the tree into an empty directory, which gets owner, mode and attributes of the tree's top. */
  async extract(host: Host, target: string, watch: WatchOptions): Promise<void> {
    clearXattrs(target, (name) => !isXattrAllowed(name)); // left by the previous tree
    await unpackTree(host, this.#members(), target, watch).catch((error) => {
      throw explained(error);
    });
  }

  /** Refuses what `extract` would refuse, without writing anything. Yields after each piece of the archive. */
  async *check(): AsyncGenerator<void> {
    const check = new TreeCheck();
    for await (const member of this.#members()) {
      check.admit(member);
      for await (const _ of member.content()) yield;
      yield;
    }
  }

  async *#members(): AsyncGenerator<Member> {
    for await (const { entry, path } of this.#entries) {
      const refuse = (why: string): never => {
        throw invalid(`${shown(entry.name)} ${why}`);
      };
      if (path === this.#root && entry.type !== "directory") throw invalid(`"${this.#root}" is no directory`);
      const within = (whole: string) => whole.slice(this.#root.length + 1);
      let target = "";
      if (entry.type === "link") {
        const linked = cleanPath(entry.linkName);
        if (!linked?.startsWith(`${this.#root}/`)) {
          refuse(`is a hard link out of its volume, to ${shown(entry.linkName)}`);
        }
        target = within(linked!);
      }
      yield memberOf(entry, within(path), target, refuse);
    }
  }
}

function explained(error: unknown): unknown {
  return error instanceof MemberError ? invalid(error.message) : error;
}

function invalid(why: string): LidoError {
  return new LidoError("bad_request", `Invalid backup: ${why}`);
}
