import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { WrittenRoot } from "../files/file_messages.ts";
import type { MountPlace } from "../runtime.ts";

/** A mount of ours in a container: what was attached is detached, whatever has become of its source. */
export interface Attached extends Omit<MountPlace, "foreign"> {
  readonly root: WrittenRoot;
  /** Identities of the mounts that came with it, below it. */
  readonly below: readonly string[];
}

/** The mounts of ours that a container has, in a file beside it for the next daemon. Of one that is not known here, because a daemon before this kind
 * of file had started the container or it was killed just then, the source tells what it is. */
export class AttachedMounts {
  readonly #directory: string;
  #all: Attached[] | undefined;

  /** @param directory Of the container. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  find({ target, source, subPath }: MountPlace): Attached | undefined {
    return this.#read().find((one) => one.target === target && one.source === source && one.subPath === subPath);
  }

  set(...mounts: readonly Attached[]): void {
    const isOther = ({ target }: Attached) => mounts.every((one) => one.target !== target);
    this.#write([...this.#read().filter(isOther), ...mounts]);
  }

  delete(mount: MountPlace): void {
    const found = this.find(mount);
    if (found) this.#write(this.#read().filter((one) => one !== found));
  }

  #read(): Attached[] {
    return this.#all ??= readFrom(this.#file);
  }

  /** One that is gone, or a container that has ended just then, needs no file. */
  #write(all: Attached[]): void {
    this.#all = all;
    try {
      writeFileSync(`${this.#file}.new`, JSON.stringify(all), { mode: 0o600 });
      renameSync(`${this.#file}.new`, this.#file);
    } catch (error) {
      if ((error as { code?: string }).code !== "ENOENT") throw error;
    }
  }

  get #file(): string {
    return join(this.#directory, "mounts.json");
  }
}

function readFrom(file: string): Attached[] {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return [];
  }
}
